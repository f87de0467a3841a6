"""A guided step at Stable Diffusion 1.5's size on a CPU: three rows at 32x32 latents, beside its peers used plainly."""

from __future__ import annotations

import copy
import gc
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
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
from .peers.openvino_unet import OpenVinoUNet, convert
from .random_model import SD15, TINY, Shape, random_pipeline, save_random_model
from .results import Row
from .timing import Timing, Work, interleave, ratio
from .whole_edits import Settings, our_editor

_ROUNDS = 9
_ROWS = 3
_STEP = "guided step, SD1.5 size, 32x32 latents, 3 rows"
_OURS = {
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
    """Ours by backend and dtype and the peers, in turns; two rows against three; shares of the ceiling.

    In two heats, as all of them together do not fit in 24 GB: against PyTorch's peers, and against OpenVINO.
    """
    cpu, (shape, latents) = torch.device("cpu"), (TINY, 8) if bench.quick else (SD15, 32)
    case = Case(8 * latents, cpu)
    with tempfile.TemporaryDirectory() as folder:
        bench.watching("exporting a model of SD1.5's size, with int8")
        bundle = export_random(shape, latents, Path(folder))
        memory = _memory(bundle, 8 * latents if bench.quick else 512)
        heats = []
        for name, peers in (("PyTorch", _pytorch_peers), ("OpenVINO", _openvino_peers)):
            bench.watching(f"loading, converting, compiling: beside {name}")
            contenders = {**peers(random_pipeline(shape), case, latents), **_ours(bundle, shape, case)}
            watch = bench.watching(f"guided step, SD1.5 size, beside {name}")
            heats.append(interleave(contenders, bench.rounds(_ROUNDS), watch=watch))
            del contenders
            torch._dynamo.reset()
            gc.collect()
    fewer = [_two_rows(shape, case, dtype, bench) for dtype in ("float32", "auto")]
    gflop, auto = unet_gflop(shape, latents, _ROWS), resolve_dtype("auto", cpu)
    best = min(("torch", "openvino"), key=lambda name: heats[1][name].spread.p50)
    return [
        *(row for timings in heats for row in _against_peers(timings, best, str(auto).removeprefix("torch."))),
        *fewer,
        memory,
        *share_of_ceiling("cpu.sd15.step", heats[1][best], gflop, cpu, auto, bench.quick),
        *share_of_ceiling("cpu.sd15.int8_step", heats[1]["int8"], gflop, cpu, auto, bench.quick),
    ]


def export_random(shape: Shape, latents: int, folder: Path) -> Path:
    """A random model exported by the command, int8 calibrated on one short edit of the size that is timed."""
    export(str(model_to_export(shape, latents, folder)), folder / "bundle", write_samples(folder))
    return folder / "bundle"


def model_to_export(shape: Shape, latents: int, folder: Path) -> Path:
    """A random model whose own size is 8 x latents pixels, and whose edits are of 4 steps."""
    model = save_random_model(shape, folder / "model")
    config = model / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": latents}))
    (model / "defaults.json").write_text(json.dumps({"steps": 4}))
    return model


def _memory(bundle: Path, pixels: int) -> Row:
    gb = peak_memory_gb(our_editor, bundle, Settings(size=pixels, steps=2, backend="openvino"), "bfloat16")
    what = f"peak memory of a {pixels}x{pixels} edit, SD1.5 size, bfloat16 on a CPU (openvino), loading included"
    return Row("cpu.sd15.edit_512.peak_memory.openvino", gb, "GB", "lower", None, {"what": what})


def _pytorch_peers(pipe: Any, case: Case, latents: int) -> dict[str, Work]:
    import torch._inductor.config as inductor

    inductor.freezing = True  # weights are constants: folded and laid out at compilation
    half = copy.deepcopy(pipe.unet).to(torch.bfloat16)
    fast = copy.deepcopy(half).to(memory_format=torch.channels_last)
    return {
        "diffusers_fp32": DiffusersStep(pipe, pipe.unet, case, torch.float32),
        "diffusers_bf16": DiffusersStep(pipe, half, case, torch.bfloat16),
        "channels_last": DiffusersStep(pipe, fast, case, torch.bfloat16),
        "compiled": DiffusersStep(pipe, torch.compile(fast), case, torch.bfloat16),
    }


def _openvino_peers(pipe: Any, case: Case, latents: int) -> dict[str, Work]:
    plain = OpenVinoUNet(convert(pipe.unet, _ROWS, latents), "bfloat16")
    return {"plain_openvino": DiffusersStep(pipe, plain, case, torch.float32)}


def _ours(bundle: Path, shape: Shape, case: Case) -> dict[str, Work]:
    return {
        "torch": our_step(random_pipeline(shape), case, "auto"),
        "openvino": exported_step(bundle, "openvino", case, "bfloat16"),
        "int8": exported_step(bundle, "openvino", case, "int8"),
    }


def _against_peers(timings: Mapping[str, Timing], best: str, auto: str) -> list[Row]:
    rows = []
    for name, ours in _OURS.items():
        targets = _EXACT_TARGETS if name == best else _INT8_TARGETS if name == "int8" else {}
        for peer, theirs in _PEERS.items():
            if peer not in timings:
                continue
            what = f"{_STEP}: {ours.format(auto=auto)} against {theirs}"
            rows.append(
                speedup(f"cpu.sd15.step.{name}.vs_{peer}", what, timings[name], timings[peer], targets.get(peer))
            )
    return rows


def _two_rows(shape: Shape, case: Case, dtype: str, bench: Bench) -> Row:
    """A contest of its own: in use a step follows a step of the same model, not one of diffusers' in float32."""
    pipe, kind = random_pipeline(shape), str(resolve_dtype(dtype, case.device)).removeprefix("torch.")
    works = {
        "two": our_step(pipe, replace(case, image_guidance=1.0), dtype),
        "three": our_step(pipe, case, dtype),
    }
    watch = bench.watching(f"guided step, SD1.5 size, two rows and three, {dtype}")
    timings = interleave(works, bench.rounds(_ROUNDS), watch=watch)
    two, three = timings["two"], timings["three"]
    spread = ratio(two, three)
    detail = {
        "what": f"the same step at image guidance 1, which needs two rows ({kind}): its time over that at 1.5",
        **spread.as_json(),
        "two_rows_s": two.as_json(),
        "three_rows_s": three.as_json(),
    }
    return Row(f"cpu.sd15.step.image_guidance_1_vs_1_5.{dtype}", spread.p50, "x", "lower", 0.70, detail)
