"""Where the time of a guided step goes: diffusers' and ours, by kind of operation, as their own profilers tell."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ip2p_fast.backends.bundle_backend import BundleBackend, opened
from ip2p_fast.backends.openvino_backend import OpenVinoRunner, dtypes_of

from .bench import Bench
from .breakdown_kinds import KINDS
from .exported import export, write_samples
from .guided_steps import Case, DiffusersStep, step_of
from .random_model import SD15, TINY, random_pipeline, save_random_model
from .results import Row
from .sd15 import export_random
from .timing import Work, interleave

_ROUNDS = 15
_PROFILED = 9
# untold steps before those that are profiled: a small model's first ones take twice as long
_SETTLING = 20
# the first of these that is in the name of an operation of PyTorch's; its own time alone is counted
_TORCH = (
    ("scaled_dot_product", "attention"),
    ("convolution", "convolutions"),
    ("mm", "linear layers"),
    ("linear", "linear layers"),
    ("copy", "layout and copies"),
    ("cat", "layout and copies"),
    ("upsample", "layout and copies"),
    ("norm", "norms and activations"),
    ("silu", "norms and activations"),
    ("gelu", "norms and activations"),
    ("add", "norms and activations"),
    ("mul", "norms and activations"),
)
# of OpenVINO's types of nodes; a fused attention is told by its name
_OPENVINO = {
    "Convolution": "convolutions",
    "FullyConnected": "linear layers",
    "FullyConnectedQuantizedLegacy": "linear layers",
    "MatMul": "linear layers",
    "Subgraph": "norms and activations",
    "MVN": "norms and activations",
    "Add": "norms and activations",
    "Multiply": "norms and activations",
    "Reorder": "layout and copies",
    "Transpose": "layout and copies",
    "Concat": "layout and copies",
    "Interpolate": "layout and copies",
    "Convert": "layout and copies",
    "GatherND": "layout and copies",
}


def measure(bench: Bench) -> list[Row]:
    """One edit's step of three rows: the pocket model's, and one of Stable Diffusion 1.5's size at 32x32 latents."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench.watching("exporting the pocket model, with int8")
        pocket = str(save_random_model(TINY, folder / "tiny")) if bench.quick else bench.model
        export(pocket, folder / "pocket", write_samples(folder) if bench.quick else None)
        rows += _model("pocket", folder / "pocket", _pipeline(pocket), torch.float32, 64, bench)
        if not bench.quick:
            bench.watching("exporting a model of SD1.5's size, with int8")
            bundle = export_random(SD15, 32, folder)
            rows += _model("sd15", bundle, random_pipeline(SD15), torch.bfloat16, 256, bench)
    return rows


def _model(name: str, bundle: Path, pipe: object, dtype: torch.dtype, pixels: int, bench: Bench) -> list[Row]:
    case = Case(pixels, torch.device("cpu"))
    unet = pipe.unet.to(dtype)  # type: ignore[attr-defined]  # diffusers' pipelines have one
    diffusers = DiffusersStep(pipe, unet, case, dtype)
    contenders: dict[str, tuple[str, Work, Callable[[], Mapping[str, float]]]] = {
        "diffusers": (f"diffusers ({str(dtype).removeprefix('torch.')})", diffusers, partial(_of_torch, diffusers))
    }
    for ours in ("bfloat16", "int8"):
        step, runner = _profiled(bundle, case, ours)
        contenders[ours] = (f"ours ({ours})", _plain(bundle, case, ours), partial(_of_openvino, step, runner))
    watch = bench.watching(f"steps of {name}")
    works = {key: work for key, (_, work, _) in contenders.items()}
    timings = interleave(works, bench.rounds(_ROUNDS), watch=watch)
    rows = []
    for key, (title, _, profile) in contenders.items():
        whole, parts = 1000 * timings[key].spread.p50, profile()
        parts = {**parts, "all else": max(0.0, whole - sum(parts.values()))}
        rows += [
            Row(
                f"cpu.breakdown.{name}.{key}.{kind.replace(' ', '_')}",
                parts.get(kind, 0.0),
                "ms",
                "lower",
                None,
                {"what": f"a step of {name}, {title}: {kind}", "step_ms": whole, "title": title},
            )
            for kind in KINDS
        ]
    return rows


def _pipeline(model: str) -> object:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix import (
        StableDiffusionInstructPix2PixPipeline,
    )

    from ip2p_fast.checkpoints import SHIPPED

    folder = SHIPPED.get(model, Path(model))
    return StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, torch_dtype=torch.float32)


def _plain(bundle: Path, case: Case, dtype: str) -> Work:
    read, tokenizer = opened(bundle, dtype, dtypes_of)
    return step_of(BundleBackend(read, OpenVinoRunner.on_cpu(read, dtype)), tokenizer, case)


def _profiled(bundle: Path, case: Case, dtype: str) -> tuple[Work, OpenVinoRunner]:
    read, tokenizer = opened(bundle, dtype, dtypes_of)
    runner = OpenVinoRunner.on_cpu(read, dtype, profiled=True)
    return step_of(BundleBackend(read, runner), tokenizer, case), runner


def _of_torch(step: Work) -> dict[str, float]:
    """Milliseconds of a step by kind."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(_PROFILED):
            step()
    parts = dict.fromkeys(KINDS, 0.0)
    for event in profile.key_averages():
        kind = next((kind for part, kind in _TORCH if part in event.key), "all else")
        parts[kind] += event.self_cpu_time_total / 1000 / _PROFILED
    return {kind: value for kind, value in parts.items() if kind != "all else"}


def _of_openvino(step: Work, runner: OpenVinoRunner) -> dict[str, float]:
    """Milliseconds of a step by kind: of each node the median of several steps."""
    runs = []
    for _ in range(_SETTLING):
        step()
    for _ in range(_PROFILED):
        step()
        parts = dict.fromkeys(KINDS, 0.0)
        for node in runner.node_times("guided_step"):
            attention = "scaled_dot_product" in node.name
            kind = "attention" if attention and node.type == "Subgraph" else _OPENVINO.get(node.type, "all else")
            parts[kind] += 1000 * node.seconds
        runs.append(parts)
    return {kind: float(np.median([run[kind] for run in runs])) for kind in KINDS if kind != "all else"}
