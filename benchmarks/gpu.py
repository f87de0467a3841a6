"""Stable Diffusion 1.5's size on a GPU, 512x512 in bfloat16: a guided step and a whole edit, against diffusers.

A quick trial of these runs on a CPU too.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .bench import Bench
from .ceilings import synchronizer, unet_gflop
from .comparisons import share_of_ceiling, speedup
from .guided_steps import Case, DiffusersStep, our_step
from .memory import peak_memory_gb
from .random_model import SD15, TINY, Shape, random_pipeline, save_random_model
from .results import Row
from .timing import Timing, Work, interleave
from .whole_edits import Settings, diffusers_pipeline, our_editor

_STEP_ROUNDS = 40
_EDIT_ROUNDS = 7
_STEP = "guided step, SD1.5 size, 512x512, 3 rows, bfloat16"
_EDIT = "20-step edit, SD1.5 size, 512x512, bfloat16"


def measure_step(bench: Bench) -> list[Row]:
    """Ours with and without CUDA graph, diffusers eager in its default layout and channels-last."""
    case, pipe = _case(bench), _pipeline(bench)
    channels_last = copy.deepcopy(pipe.unet).to(memory_format=torch.channels_last)
    timings = _timed(
        bench,
        "guided step",
        {
            "diffusers": DiffusersStep(pipe, pipe.unet, case, torch.bfloat16),
            "diffusers_channels_last": DiffusersStep(pipe, channels_last, case, torch.bfloat16),
            "ours": our_step(pipe, case, "bfloat16", cuda_graph=False),
            "ours_graph": our_step(pipe, case, "bfloat16", cuda_graph=True),
        },
    )
    ours, graph, eager = timings["ours"], timings["ours_graph"], timings["diffusers"]
    last = timings["diffusers_channels_last"]
    gflop = unet_gflop(_shape(bench), case.pixels // 8, 3)
    return [
        _seconds("gpu.sd15.step.time", f"{_STEP}: ours, CUDA graph", graph),
        speedup("gpu.sd15.step.vs_diffusers_eager", f"{_STEP}: ours, CUDA graph, against diffusers", graph, eager),
        speedup(
            "gpu.sd15.step.no_graph_vs_diffusers_eager", f"{_STEP}: ours, no graph, against diffusers", ours, eager
        ),
        speedup(
            "gpu.sd15.step.vs_diffusers_channels_last",
            f"{_STEP}: ours, CUDA graph, against diffusers channels last",
            graph,
            last,
        ),
        *share_of_ceiling("gpu.sd15.step", graph, gflop, case.device, torch.bfloat16, bench.quick),
    ]


def measure_compiled(bench: Bench) -> list[Row]:
    """Ours with CUDA graph against diffusers with its UNet compiled, which takes CUDA graphs too; compiling apart."""
    case, pipe = _case(bench), _pipeline(bench)
    # "eager" captures and runs: enough to see that this suite works
    how: dict[str, Any] = {"backend": "eager"} if bench.quick else {"mode": "reduce-overhead"}
    compiled = torch.compile(copy.deepcopy(pipe.unet).to(memory_format=torch.channels_last), fullgraph=True, **how)
    timings = _timed(
        bench,
        "guided step, diffusers compiled",
        {
            "diffusers": DiffusersStep(pipe, compiled, case, torch.bfloat16),
            "ours": our_step(pipe, case, "bfloat16", cuda_graph=True),
        },
    )
    ours, diffusers = timings["ours"], timings["diffusers"]
    return [
        speedup(
            "gpu.sd15.step.vs_diffusers_compiled",
            f"{_STEP}: ours, CUDA graph, against diffusers' compiled UNet, channels last",
            ours,
            diffusers,
        ),
        Row(
            "gpu.sd15.step.diffusers_compile_time",
            diffusers.first,
            "s",
            "lower",
            None,
            {"what": "first step of diffusers' compiled UNet: compiling, which ours does without"},
        ),
        Row(
            "gpu.sd15.step.first_time",
            ours.first,
            "s",
            "lower",
            None,
            {"what": "first step of ours: warm-up and capture of the CUDA graph"},
        ),
    ]


def measure_edit(bench: Bench) -> list[Row]:
    """Whole edits, picture in and picture out, and each engine's peak memory in a process of its own."""
    settings = Settings(size=_case(bench).pixels, steps=2 if bench.quick else 20, device=_device(bench).type)
    with tempfile.TemporaryDirectory() as folder:
        model = save_random_model(_shape(bench), Path(folder))
        bench.watching("peak memory of an edit")
        engines = {"diffusers": diffusers_pipeline, "ours": our_editor}
        memory = {name: peak_memory_gb(engine, model, settings, "bfloat16") for name, engine in engines.items()}
        edits: dict[str, Work] = {
            name: partial(engine(model, settings, "bfloat16"), 1) for name, engine in engines.items()
        }
        timings = _timed(bench, "whole edits", edits, _EDIT_ROUNDS)
    return [
        _seconds("gpu.sd15.edit_512.time", f"{_EDIT}: ours", timings["ours"]),
        speedup(
            "gpu.sd15.edit_512.vs_diffusers", f"{_EDIT}: ours against diffusers", timings["ours"], timings["diffusers"]
        ),
        Row(
            "gpu.sd15.edit_512.peak_memory",
            memory["ours"],
            "GB",
            "lower",
            None,
            {"what": f"peak GPU memory of a {_EDIT}", "diffusers_gb": memory["diffusers"]},
        ),
    ]


def _timed(bench: Bench, what: str, contenders: dict[str, Work], rounds: int = _STEP_ROUNDS) -> dict[str, Timing]:
    watch: Callable[[int, int], None] = bench.watching(f"{what}, SD1.5 size, {bench.device}")
    return interleave(contenders, bench.rounds(rounds), warmup=3, synchronize=synchronizer(_device(bench)), watch=watch)


def _seconds(name: str, what: str, timing: Timing) -> Row:
    return Row(name, timing.spread.p50, "s", "lower", None, {"what": what, **timing.as_json()})


def _device(bench: Bench) -> torch.device:
    return torch.device(bench.device)


def _shape(bench: Bench) -> Shape:
    return TINY if bench.quick else SD15


def _case(bench: Bench) -> Case:
    return Case(64 if bench.quick else 512, _device(bench))


def _pipeline(bench: Bench) -> Any:
    return random_pipeline(_shape(bench), torch.bfloat16).to(_device(bench))
