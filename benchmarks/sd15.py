"""A guided step at Stable Diffusion 1.5's size on a CPU: three rows at 32x32 latents, against diffusers."""

from __future__ import annotations

import copy

import torch

from ip2p_fast.backends.torch_backend import resolve_dtype

from .bench import Bench
from .ceilings import unet_gflop
from .comparisons import share_of_ceiling, speedup
from .guided_steps import Case, DiffusersStep, our_step
from .random_model import SD15, TINY, random_pipeline
from .results import Row
from .timing import Timing, Work, interleave, ratio

_ROUNDS = 15
_STEP = "guided step, SD1.5 size, 32x32 latents, 3 rows"


def measure(bench: Bench) -> list[Row]:
    """Ours in float32 and in the dtype that dtype="auto" chooses, diffusers in its default and at its fastest."""
    cpu, (shape, latents) = torch.device("cpu"), (TINY, 8) if bench.quick else (SD15, 32)
    watch = bench.watching("guided step, SD1.5 size")
    pipe = random_pipeline(shape)
    case, one = Case(8 * latents, cpu), Case(8 * latents, cpu, image_guidance=1.0)
    fast_unet = copy.deepcopy(pipe.unet).to(torch.bfloat16, memory_format=torch.channels_last)
    contenders: dict[str, Work] = {
        "diffusers": DiffusersStep(pipe, pipe.unet, case, torch.float32),
        "diffusers_fast": DiffusersStep(pipe, fast_unet, case, torch.bfloat16),
        "ours_fp32": our_step(pipe, case, "float32"),
        "ours": our_step(pipe, case, "auto"),
    }
    timings = interleave(contenders, bench.rounds(_ROUNDS), watch=watch)
    # a contest of their own: in use a step follows a step of the same model, not one of diffusers' in float32
    fewer: list[Row] = []
    for name, dtype in (("ours_fp32", "float32"), ("ours", "auto")):
        watch = bench.watching(f"guided step, SD1.5 size, two rows and three, {dtype}")
        rows = {"two": our_step(pipe, one, dtype), "three": contenders[name]}
        fewer.append(_two_rows(interleave(rows, bench.rounds(_ROUNDS), watch=watch), dtype))
    auto = resolve_dtype("auto", cpu)
    gflop = unet_gflop(shape, latents, 3)
    return [
        *_against_diffusers(timings, str(auto).removeprefix("torch.")),
        *fewer,
        *share_of_ceiling("cpu.sd15.step", timings["ours"], gflop, cpu, auto, bench.quick),
    ]


def _against_diffusers(timings: dict[str, Timing], auto: str) -> list[Row]:
    ours, ours_fp32 = timings["ours"], timings["ours_fp32"]
    default, fast = timings["diffusers"], timings["diffusers_fast"]
    return [
        speedup(
            "cpu.sd15.step.vs_diffusers_fp32",
            f"{_STEP}: ours ({auto}) against diffusers' default (float32)",
            ours,
            default,
            target=2.2,
        ),
        speedup(
            "cpu.sd15.step.fp32_vs_diffusers_fp32",
            f"{_STEP}: ours (float32) against diffusers' default (float32)",
            ours_fp32,
            default,
        ),
        speedup(
            "cpu.sd15.step.vs_diffusers_bf16_channels_last",
            f"{_STEP}: ours ({auto}) against diffusers in bfloat16, channels last",
            ours,
            fast,
            target=1.0,
        ),
    ]


def _two_rows(timings: dict[str, Timing], dtype: str) -> Row:
    kind = str(resolve_dtype(dtype, torch.device("cpu"))).removeprefix("torch.")
    two, three = timings["two"], timings["three"]
    spread = ratio(two, three)
    detail = {
        "what": f"the same step at image guidance 1, which needs two rows ({kind}): its time over that at 1.5",
        **spread.as_json(),
        "two_rows_s": two.as_json(),
        "three_rows_s": three.as_json(),
    }
    return Row(f"cpu.sd15.step.image_guidance_1_vs_1_5.{dtype}", spread.p50, "x", "lower", 0.70, detail)
