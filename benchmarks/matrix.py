"""Edits a second of ours and of peers, over picture sizes and batches: the pocket model, one edit after the other.

Cells come in order of importance and stop when the time is up; what was not run is listed, not guessed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ip2p_fast.checkpoints import SHIPPED

from .bench import Bench
from .exported import export, write_samples
from .memory import peak_memory_gb
from .random_model import TINY, save_random_model
from .results import Row
from .timing import Timing, Work, interleave
from .whole_edits import Engine, Settings, diffusers_pipeline, our_editor

# (side in pixels, edits in a batch): the model's own size and one edit first
CELLS = ((64, 1), (64, 4), (64, 16), (96, 1), (128, 1), (96, 4), (128, 4), (96, 16), (128, 16))
BUDGET = 300.0
"""Seconds after which no further cell is begun."""
_ROUNDS = {1: 11, 4: 7, 16: 5}
_STEPS, _STUDENT_STEPS = 20, 4


def measure(bench: Bench) -> list[Row]:
    """Every contender in every cell there is time for; peak memory of each in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = str(save_random_model(TINY, folder / "tiny")) if bench.quick else bench.model
        bench.watching("exporting the pocket model, with int8")
        export(model, folder / "bundle", write_samples(folder) if bench.quick else None)
        contenders = _contenders(model, str(folder / "bundle"), bench.quick)
        began, rows, left = time.monotonic(), [], []
        for cell in CELLS[: 2 if bench.quick else None]:
            if time.monotonic() - began > BUDGET:
                left.append(f"{cell[0]}x{cell[0]}, batch {cell[1]}")
            else:
                rows += _cell(*cell, contenders, bench)
        memory = [_memory(key, contender, bench) for key, contender in contenders.items()]
    not_run = {"what": f"cells that there was no time for: {', '.join(left) or 'none'}"}
    return [*rows, *memory, Row("cpu.matrix.cells_not_run", float(len(left)), "cells", "lower", None, not_run)]


def _contenders(model: str, bundle: str, quick: bool) -> dict[str, tuple[str, Callable[[Settings], Any], Any]]:
    """By key: a title, what makes an engine's edit function for settings, and the arguments of its memory's measure."""
    steps = 2 if quick else _STEPS
    asked: dict[str, tuple[str, Engine, str, str, Settings]] = {
        "diffusers": ("diffusers (float32)", diffusers_pipeline, _folder(model), "float32", _settings(steps)),
        "diffusers_compiled": ("diffusers, compiled (float32)", compiled, _folder(model), "float32", _settings(steps)),
        "exact": ("ours (auto)", our_editor, model, "auto", _settings(steps)),
        "int8": ("ours (int8)", our_editor, bundle, "int8", _settings(steps, "openvino")),
    }
    if not quick:
        student = "ours, one-row student of 4 steps (auto)"
        asked["student"] = (student, our_editor, "pocket-student", "auto", _settings(_STUDENT_STEPS))
    return {
        key: (title, partial(_edits, engine, place, dtype, settings), (engine, place, settings, dtype))
        for key, (title, engine, place, dtype, settings) in asked.items()
    }


def compiled(model: str | Path, settings: Settings, dtype: str) -> Callable[[int], object]:
    """diffusers' pipeline with its UNet compiled."""
    return diffusers_pipeline(model, settings, dtype, compiled=True)


def _settings(steps: int, backend: str = "auto") -> Settings:
    return Settings(size=64, steps=steps, text_guidance=3.0, image_guidance=1.5, backend=backend)


def _folder(model: str) -> str:
    return str(SHIPPED.get(model, model))


def _edits(engine: Engine, place: str, dtype: str, settings: Settings, size: int) -> Callable[[int], object]:
    return engine(place, replace(settings, size=size), dtype)


def _cell(size: int, batch: int, contenders: dict[str, Any], bench: Bench) -> list[Row]:
    watch = bench.watching(f"{size}x{size}, batch {batch}")
    works: dict[str, Work] = {key: partial(make(size), batch) for key, (_, make, _) in contenders.items()}
    timings = interleave(works, bench.rounds(_ROUNDS[batch]), watch=watch)
    return [_row(size, batch, key, contenders[key][0], timing) for key, timing in timings.items()]


def _row(size: int, batch: int, key: str, title: str, timing: Timing) -> Row:
    p50, p95, p99 = (float(value) for value in np.percentile(timing.seconds, (50, 95, 99)))
    detail = {
        "what": f"pocket, {size}x{size}, batch of {batch}: {title}",
        "p20": batch / timing.spread.p80,
        "p50": batch / p50,
        "p80": batch / timing.spread.p20,
        "call_s": {"p50": p50, "p95": p95, "p99": p99, "first": timing.first, "rounds": len(timing.seconds)},
        "title": title,
    }
    return Row(f"cpu.matrix.{size}.{batch}.{key}", batch / p50, "edits/s", "higher", None, detail)


def _memory(key: str, contender: Any, bench: Bench) -> Row:
    title, _, (engine, place, settings, dtype) = contender
    bench.watching(f"peak memory: {title}")
    what = {"what": f"peak memory of a process that makes one pocket edit: {title}", "title": title}
    return Row(f"cpu.matrix.memory.{key}", peak_memory_gb(engine, place, settings, dtype), "GB", "lower", None, what)
