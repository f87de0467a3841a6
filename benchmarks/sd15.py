"""A guided step at Stable Diffusion 1.5's size on a CPU: three rows at 32x32 latents, beside its peers used plainly."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ip2p_fast.backends.torch_backend import resolve_dtype

from .bench import Bench
from .ceilings import unet_gflop
from .comparisons import share_of_ceiling, speedup
from .exported import export, write_samples
from .guided_steps import Case, DiffusersStep, exported_step, our_step
from .memory import peak_memory_gb
from .peers.openvino_unet import OpenVinoUNet
from .random_model import SD15, TINY, Shape, random_pipeline, save_random_model
from .results import Row
from .timing import Timing, Work, interleave, ratio
from .whole_edits import Settings, our_editor

_ROUNDS = 11
_ROWS = 3
_STEP = "guided step, SD1.5 size, 32x32 latents, 3 rows"
_OURS = {
    "torch_fp32": "ours (torch, float32)",
    "torch": "ours (torch, {auto})",
    "openvino": "ours (openvino, bfloat16)",
    "int8": "ours (openvino, int8)",
}
_PEERS = {
    "diffusers_fp32": "diffusers' default (float32)",
    "diffusers_bf16": "diffusers in bfloat16",
    "channels_last": "diffusers in bfloat16, channels last",
    "compiled": "diffusers in bfloat16, channels last, torch.compile with frozen weights",
    "plain_openvino": "diffusers' UNet in OpenVINO (bfloat16)",
}
# what is promised of ours over a peer's: exact at its best, and in int8
_EXACT_TARGETS = {
    "diffusers_fp32": 3.0,
    "diffusers_bf16": 2.2,
    "channels_last": 1.0,
    "compiled": 1.3,
    "plain_openvino": 1.0,
}
_INT8_TARGETS = {"diffusers_fp32": 4.5, "plain_openvino": 1.6}


def measure(bench: Bench) -> list[Row]:
    """Ours by backend and dtype and the peers, in turns in one run; two rows against three; shares of the ceiling."""
    cpu, (shape, latents) = torch.device("cpu"), (TINY, 8) if bench.quick else (SD15, 32)
    with tempfile.TemporaryDirectory() as folder:
        bench.watching("exporting a model of SD1.5's size, with int8")
        bundle = _bundle(shape, latents, Path(folder))
        memory = _memory(bundle, 8 * latents if bench.quick else 512)
        bench.watching("loading, converting, compiling")
        contenders, case, pipe = _contenders(shape, latents, bundle)
        watch = bench.watching("guided step, SD1.5 size")
        timings = interleave(contenders, bench.rounds(_ROUNDS), watch=watch)
        # a contest of their own: in use a step follows a step of the same model, not one of diffusers' in float32
        one = Case(case.pixels, cpu, image_guidance=1.0)
        fewer: list[Row] = []
        for name, dtype in (("torch_fp32", "float32"), ("torch", "auto")):
            watch = bench.watching(f"guided step, SD1.5 size, two rows and three, {dtype}")
            rows = {"two": our_step(pipe, one, dtype), "three": contenders[name]}
            fewer.append(_two_rows(interleave(rows, bench.rounds(_ROUNDS), watch=watch), dtype))
    gflop, auto = unet_gflop(shape, latents, _ROWS), resolve_dtype("auto", cpu)
    best = min(("torch", "openvino"), key=lambda name: timings[name].spread.p50)
    return [
        *_against_peers(timings, best, str(auto).removeprefix("torch.")),
        *fewer,
        memory,
        *share_of_ceiling("cpu.sd15.step", timings[best], gflop, cpu, auto, bench.quick),
        *share_of_ceiling("cpu.sd15.int8_step", timings["int8"], gflop, cpu, auto, bench.quick),
    ]


def _bundle(shape: Shape, latents: int, folder: Path) -> Path:
    """A random model exported by the command, int8 calibrated on one short edit of the size that is timed."""
    model = save_random_model(shape, folder / "model")
    config = model / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": latents}))
    (model / "defaults.json").write_text(json.dumps({"steps": 4}))
    export(str(model), folder / "bundle", write_samples(folder))
    return folder / "bundle"


def _memory(bundle: Path, pixels: int) -> Row:
    gb = peak_memory_gb(our_editor, bundle, Settings(size=pixels, steps=2, backend="openvino"), "bfloat16")
    what = f"peak memory of a {pixels}x{pixels} edit, SD1.5 size, bfloat16 on a CPU (openvino), loading included"
    return Row("cpu.sd15.edit_512.peak_memory.openvino", gb, "GB", "lower", None, {"what": what})


def _contenders(shape: Shape, latents: int, bundle: Path) -> tuple[dict[str, Work], Case, Any]:
    case, pipe = Case(8 * latents, torch.device("cpu")), random_pipeline(shape)
    half = copy.deepcopy(pipe.unet).to(torch.bfloat16)
    fast = copy.deepcopy(half).to(memory_format=torch.channels_last)
    import torch._inductor.config as inductor

    inductor.freezing = True  # weights are constants: folded and laid out at compilation
    contenders: dict[str, Work] = {
        "diffusers_fp32": DiffusersStep(pipe, pipe.unet, case, torch.float32),
        "diffusers_bf16": DiffusersStep(pipe, half, case, torch.bfloat16),
        "channels_last": DiffusersStep(pipe, fast, case, torch.bfloat16),
        "compiled": DiffusersStep(pipe, torch.compile(fast), case, torch.bfloat16),
        "plain_openvino": DiffusersStep(pipe, OpenVinoUNet(pipe.unet, _ROWS, latents, "bf16"), case, torch.float32),
        "torch_fp32": our_step(pipe, case, "float32"),
        "torch": our_step(pipe, case, "auto"),
        "openvino": exported_step(bundle, "openvino", case, "bfloat16"),
        "int8": exported_step(bundle, "openvino", case, "int8"),
    }
    return contenders, case, pipe


def _against_peers(timings: Mapping[str, Timing], best: str, auto: str) -> list[Row]:
    rows = []
    for name, ours in _OURS.items():
        targets = _EXACT_TARGETS if name == best else _INT8_TARGETS if name == "int8" else {}
        for peer, theirs in _PEERS.items():
            what = f"{_STEP}: {ours.format(auto=auto)} against {theirs}"
            rows.append(
                speedup(f"cpu.sd15.step.{name}.vs_{peer}", what, timings[name], timings[peer], targets.get(peer))
            )
    return rows


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
