"""Stable Diffusion 1.5's size on a GPU, 512x512 in bfloat16: a guided step and whole edits, against diffusers.

A quick trial of these runs on a CPU too.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ip2p_fast.quantize import KINDS, runs_on

from .bench import Bench
from .ceilings import synchronizer, unet_gflop
from .comparisons import against, share_of_ceiling, speedup
from .guided_steps import Case, DiffusersStep, our_step
from .memory import peak_memory_gb
from .random_model import SD15, TINY, Shape, random_pipeline, save_random_model
from .results import Row
from .timing import Timing, Work, interleave
from .whole_edits import (
    Engine,
    Settings,
    diffusers_pipeline,
    open_diffusers,
    open_editor,
    our_editor,
    our_sparing_editor,
)

_STEP_ROUNDS = 40
_EDIT_ROUNDS = 7
_BATCH_ROUNDS = 5
_BATCH = 16
_WATCHED_STEPS = 10
STEP = "guided step, SD1.5 size, 512x512, 3 rows, bfloat16"
_EDIT = "20-step edit, SD1.5 size, 512x512, bfloat16"
_STUDENT = "4-step edit of one row a step, as of a distilled model, SD1.5 size, 512x512, bfloat16"


def measure_step(bench: Bench) -> list[Row]:
    """Ours with and without CUDA graph and with 8-bit layers; diffusers in its default layout and another."""
    case, pipe = case_of(bench), pipeline_of(bench)
    channels_last = copy.deepcopy(pipe.unet).to(memory_format=torch.channels_last)
    graph_step = our_step(pipe, case, "bfloat16")
    contenders: dict[str, Work] = {
        "diffusers": DiffusersStep(pipe, pipe.unet, case, torch.bfloat16),
        "diffusers_channels_last": DiffusersStep(pipe, channels_last, case, torch.bfloat16),
        "ours": our_step(pipe, case, "bfloat16", cuda_graph=False),
        "ours_graph": graph_step,
        "ours_searching": _searching(our_step(pipe, case, "bfloat16")),
        **{kind: our_step(pipe, case, "bfloat16", quantize=kind) for kind in KINDS if runs_on(case.device, kind)},
    }
    timings = timed(bench, "guided step", contenders)
    ours, graph, eager = timings["ours"], timings["ours_graph"], timings["diffusers"]
    last = timings["diffusers_channels_last"]
    gflop = unet_gflop(_shape(bench), case.pixels // 8, 3)
    return [
        _seconds("gpu.sd15.step.time", f"{STEP}: ours, CUDA graph", graph, 0.006),
        speedup("gpu.sd15.step.vs_diffusers_eager", f"{STEP}: ours, CUDA graph, against diffusers", graph, eager, 3.0),
        speedup("gpu.sd15.step.no_graph_vs_diffusers_eager", f"{STEP}: ours, no graph, against diffusers", ours, eager),
        speedup(
            "gpu.sd15.step.vs_diffusers_channels_last",
            f"{STEP}: ours, CUDA graph, against diffusers channels last",
            graph,
            last,
        ),
        against(
            "gpu.sd15.step.convolutions_searched",
            f"{STEP}: ours, CUDA graph, cuDNN's convolutions found by search, against those it proposes",
            timings["ours_searching"],
            graph,
            {},
        ),
        *share_of_ceiling("gpu.sd15.step", graph, gflop, case.device, torch.bfloat16, bench.quick),
        *(
            _seconds(
                f"gpu.sd15.step.{kind}.time", f"{STEP}: ours, CUDA graph, 8-bit layers in {kind}", timings[kind], goal
            )
            for kind, goal in (("fp8", 0.0045), ("int8", None))
            if kind in timings
        ),
        *_waits(graph_step, case.device),
    ]


def measure_edit(bench: Bench) -> list[Row]:
    """Whole edits, pictures in and pictures out: one, 16 at once, 16 of a student's; and peak memory of one."""
    settings = Settings(size=case_of(bench).pixels, steps=2 if bench.quick else 20, device=device_of(bench).type)
    student = Settings(settings.size, min(settings.steps, 4), 1.0, 1.0, settings.device)
    batch = 2 if bench.quick else _BATCH
    with tempfile.TemporaryDirectory() as folder:
        model = save_random_model(_shape(bench), Path(folder), device=device_of(bench))
        memory = _memory(bench, model, replace(settings, steps=3))  # more steps take no more
        ours = open_editor(model, settings.backend, settings.device, "bfloat16")
        diffusers = open_diffusers(model, settings.device, "bfloat16")[1]
        one = timed(
            bench,
            "whole edits",
            {"diffusers": partial(diffusers, settings, 1), "ours": partial(ours, settings, 1)},
            _EDIT_ROUNDS,
        )
        many = timed(
            bench,
            f"{batch} edits at once",
            {"exact": partial(ours, settings, batch), "student": partial(ours, student, batch)},
            _BATCH_ROUNDS,
        )
    return [
        _seconds("gpu.sd15.edit_512.time", f"{_EDIT}: ours", one["ours"], 0.16),
        speedup("gpu.sd15.edit_512.vs_diffusers", f"{_EDIT}: ours against diffusers", one["ours"], one["diffusers"]),
        _rate("gpu.sd15.edit_512.batch16.rate", f"{_EDIT}: ours, 16 at once", many["exact"], batch, 9.0),
        _rate("gpu.sd15.student_512.batch16.rate", f"{_STUDENT}: ours, 16 at once", many["student"], batch, 80.0),
        *memory,
    ]


def timed(bench: Bench, what: str, contenders: dict[str, Work], rounds: int = _STEP_ROUNDS) -> dict[str, Timing]:
    """Interleaved; three calls of each before, since a CUDA graph is captured at the second."""
    watch: Callable[[int, int], None] = bench.watching(f"{what}, SD1.5 size, {bench.device}")
    return interleave(
        contenders, bench.rounds(rounds), warmup=3, synchronize=synchronizer(device_of(bench)), watch=watch
    )


def device_of(bench: Bench) -> torch.device:
    return torch.device(bench.device)


def case_of(bench: Bench) -> Case:
    return Case(64 if bench.quick else 512, device_of(bench))


def pipeline_of(bench: Bench) -> Any:
    return random_pipeline(_shape(bench), torch.bfloat16, device=device_of(bench))


def _shape(bench: Bench) -> Shape:
    return TINY if bench.quick else SD15


def _searching(step: Work) -> Work:
    """The step with cuDNN's own search for the fastest convolution of each shape."""

    def search() -> object:
        with torch.backends.cudnn.flags(benchmark=True, allow_tf32=torch.backends.cudnn.allow_tf32):
            return step()

    return search


def _waits(step: Work, device: torch.device) -> list[Row]:
    """How often the host waited for the GPU in a few steps, as PyTorch tells it; nothing where there is no GPU."""
    if device.type != "cuda":
        return []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(_WATCHED_STEPS):
                step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    count = sum("called a synchronizing" in str(warning.message) for warning in told)
    detail = {"what": f"times the host waited for the GPU in {_WATCHED_STEPS} steps: {STEP}", "steps": _WATCHED_STEPS}
    return [Row("gpu.sd15.step.waits", float(count), "waits", "lower", 0.0, detail)]


def _memory(bench: Bench, model: Path, settings: Settings) -> list[Row]:
    """Peaks of each engine in a process of its own."""
    engines: dict[str, Engine] = {"diffusers": diffusers_pipeline, "ours": our_editor, "sparing": our_sparing_editor}
    watch = bench.watching("peak memory of an edit")
    peaks = {}
    for i, (name, engine) in enumerate(engines.items()):
        peaks[name] = peak_memory_gb(engine, model, settings, "bfloat16")
        watch(i + 1, len(engines))
    kind = "peak of PyTorch's allocator" if settings.device == "cuda" else "peak of the process"
    what = f"{kind}, {settings.steps}-step edit, SD1.5 size, 512x512, bfloat16"
    detail = {"what": what, "diffusers_gb": peaks["diffusers"]}
    sparing = detail | {"what": f"{what}, low_memory"}
    return [
        Row("gpu.sd15.edit_512.peak_memory", peaks["ours"], "GB", "lower", 3.5, detail),
        Row("gpu.sd15.edit_512.low_memory.peak_memory", peaks["sparing"], "GB", "lower", 2.6, sparing),
    ]


def _seconds(name: str, what: str, timing: Timing, target: float | None = None) -> Row:
    return Row(name, timing.spread.p50, "s", "lower", target, {"what": what, **timing.as_json()})


def _rate(name: str, what: str, timing: Timing, count: int, target: float) -> Row:
    detail = {"what": what, "at_once": count, "seconds": timing.as_json()}
    return Row(name, count / timing.spread.p50, "edits/s", "higher", target, detail)
