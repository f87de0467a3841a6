"""Edits of ours and of peers over picture sizes, batches and steps: speed, latency, first edit, memory, energy.

Cells come in order of importance and stop when the time is up; what was not run is listed, not guessed. All contestants
of a cell take turns. contestants.py has who they are.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ip2p_fast.backends.torch_backend import resolve_dtype
from ip2p_fast.errors import BadInput

from .bench import Bench
from .ceilings import matmul_ceiling, synchronizer, unet_gflop
from .cells import FEWEST, Cell, by_importance, heats, rounds_in
from .contestants import Contestant, Job, absent, contestants, opened_once
from .energy import energy_counter, joules
from .matrix_model import MatrixModel, matrix_model
from .own_process import FirstEdit, first_edit
from .peers import stable_diffusion_cpp
from .random_model import Shape
from .results import Row
from .timing import Timing, Work, interleave, ratio
from .whole_edits import Edit, Settings

REFERENCE = "exact"
_ROOM = 0.7  # of the memory that is free
_UNTIMED = 3  # calls of each contestant in a cell


@dataclass(frozen=True)
class Asked:
    """sizes: None for those that suit the model. minutes: of measuring; preparation comes before. sd_cpp: a program."""

    model: str = "pocket"
    sizes: tuple[int, ...] | None = None
    batches: tuple[int, ...] = (1, 4, 16)
    steps: tuple[int, ...] = (20, 50)
    minutes: float = 10.0
    sd_cpp: Path | None = None


def measure(bench: Bench) -> list[Row]:
    """The usual matrix of the bench's model."""
    return measure_matrix(bench, Asked(bench.model))


def measure_matrix(bench: Bench, asked: Asked) -> list[Row]:
    """Every contestant that is installed, in every cell there is time for; each in a process of its own first.

    Raises BadInput, before anything is measured, for a model, size or program that cannot be used, or if ours fails.
    """
    if asked.sd_cpp is not None:
        stable_diffusion_cpp.require(asked.sd_cpp)
    device = torch.device(bench.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = matrix_model(asked.model, asked.sizes, device.type, folder, bench.quick)
        half = str(resolve_dtype("auto", device)).removeprefix("torch.")
        job = Job(model.folder, folder, device.type, half, model.samples, model.student, asked.sd_cpp)
        listed = contestants(job)
        not_run = {one.title: why for one in listed if (why := absent(one))}
        entered = _prepared([one for one in listed if one.title not in not_run], job, bench, not_run)
        matrix = Matrix(model, job, bench, not_run)
        until = time.monotonic() + 60 * asked.minutes
        opening = Cell(model.sizes[0], 1, asked.steps[0])
        firsts = matrix.firsts(entered, opening)
        if REFERENCE not in firsts:
            raise BadInput(f"ours did not edit: {not_run[listed[0].title]}")
        running = {one.key: one for one in entered if one.key in firsts}
        rows = matrix.costs(running, firsts, opening)
        cells = by_importance(model.sizes, asked.batches, asked.steps)
        rows += matrix.speeds(running, firsts, cells[:1] if bench.quick else cells, until)
    told = "; ".join(f"{what}: {why}" for what, why in not_run.items()) or "nothing"
    detail = {"what": f"{model.name}: not run: {told}", "not_run": not_run}
    return [*rows, Row(f"{matrix.name}.not_run", float(len(not_run)), "count", "lower", None, detail)]


class Matrix:
    """One model on one device; `not_run` gathers what fails, by title."""

    def __init__(self, model: MatrixModel, job: Job, bench: Bench, not_run: dict[str, str]) -> None:
        self.model, self.job, self.bench, self.not_run = model, job, bench, not_run
        self.device = torch.device(job.device)
        self.synchronize = synchronizer(self.device)
        self.energy = energy_counter(job.device)
        self.name = f"{'gpu' if job.device == 'cuda' else 'cpu'}.matrix.{model.name}"
        self._counted: dict[tuple[int, int], float] = {}

    def firsts(self, entered: list[Contestant], cell: Cell) -> dict[str, FirstEdit]:
        """The first edit of each, in a process of its own. One that fails takes no further part."""
        settings = self._settings(cell)
        found = {}
        for one in entered:
            self.bench.watching(f"first edit: {one.title}")
            try:
                found[one.key] = first_edit(partial(opened_once, one, self.job, settings), self.job.device)
            except Exception as error:  # noqa: BLE001  # a peer's failure is a result, not the end of the others
                self.not_run[one.title] = _said(error)
        return found

    def costs(self, running: Mapping[str, Contestant], firsts: Mapping[str, FirstEdit], cell: Cell) -> list[Row]:
        """First edit, what of it compiles, and peak memory of each."""
        edit, rows = f"{cell.size}x{cell.size}, {cell.steps} steps", []
        for key, one in running.items():
            first = firsts[key]
            for figure, value, unit, what in (
                ("first_edit", first.load + first.first, "s", f"load and first edit, {edit}"),
                ("compile", max(0.0, first.first - first.second), "s", "of it compilation and warm-up"),
                ("memory", first.peak_gb, "GB", f"peak memory of two edits, {edit}, loading included"),
            ):
                detail = {"what": f"{self.model.name}, {one.title}: {what}", "title": one.title, **asdict(first)}
                rows.append(Row(f"{self.name}.{figure}.{key}", value, unit, "lower", None, detail))
        return rows

    def speeds(
        self, running: Mapping[str, Contestant], firsts: Mapping[str, FirstEdit], cells: list[Cell], until: float
    ) -> list[Row]:
        """Cell after cell, those that would end by `until`, and the first in any case."""
        groups = heats({key: firsts[key].peak_gb for key in running}, _ROOM * _free_gb(self.device), REFERENCE)
        ceilings = {dtype: self._ceiling(dtype) for dtype in {one.dtype for one in running.values()}}
        rows: list[Row] = []
        opened: dict[str, Edit] = {}
        pace = 0.0  # seconds a GFLOP of the cell takes, all contestants together and as few rounds as there can be
        for number, cell in enumerate(cells):
            if number and time.monotonic() + pace * self._gflop(cell) > until:
                self.not_run[str(cell)] = "no time"
                continue
            took = 0.0
            for index, group in enumerate(groups):
                if list(opened) != group:
                    opened.clear()  # its memory first
                    gc.collect()
                    opened |= {key: running[key].open(self.job) for key in group}
                self.bench.watching(str(cell))
                measured = self._heat(cell, opened, len(groups) * (len(cells) - number) - index, until, running)
                new = [key for key in measured if key != REFERENCE or not index]
                rows += [self._speed(cell, running[key], measured, opened[key], ceilings) for key in new]
                took += sum(timing.spread.p50 for timing in measured.values())
            pace = (_UNTIMED + FEWEST) * took / self._gflop(cell)
        return rows

    def _heat(
        self, cell: Cell, opened: Mapping[str, Edit], heats_left: int, until: float, running: Mapping[str, Contestant]
    ) -> dict[str, Timing]:
        """One that fails, as for want of memory, is left out of the cell; without ours, all are."""
        works: dict[str, Work] = {key: partial(edit, self._settings(cell), cell.batch) for key, edit in opened.items()}
        tried: dict[str, Timing] = {}
        for key, work in works.items():
            try:
                tried |= interleave({key: work}, rounds=1, warmup=1, synchronize=self.synchronize)
            except Exception as error:  # noqa: BLE001  # as a peer's failure
                self.not_run[f"{running[key].title}, {cell}"] = _said(error)
        if REFERENCE not in tried:
            return {}
        expected = sum(timing.seconds[0] for timing in tried.values())
        rounds = FEWEST if self.bench.quick else rounds_in(expected, until - time.monotonic(), heats_left)
        watch = self.bench.watching(str(cell))
        timings = interleave({key: works[key] for key in tried}, rounds, 1, self.synchronize, watch)
        return {key: Timing(timing.seconds, tried[key].first) for key, timing in timings.items()}

    def _speed(
        self,
        cell: Cell,
        one: Contestant,
        measured: Mapping[str, Timing],
        edit: Edit,
        ceilings: Mapping[str, float],
    ) -> Row:
        timing = measured[one.key]
        p50, p95, p99 = (float(value) for value in np.percentile(timing.seconds, (50, 95, 99)))
        gflop_per_s = self._gflop(cell, one) / p50
        detail: dict[str, Any] = {
            "what": f"{self.model.name}, {cell}: {one.title}",
            "title": one.title,
            "cell": asdict(cell),
            "p20": cell.batch / timing.spread.p80,
            "p50": cell.batch / p50,
            "p80": cell.batch / timing.spread.p20,
            "samples": [cell.batch / seconds for seconds in timing.seconds],
            "latency_s": {"p50": p50, "p95": p95, "p99": p99, "first": timing.first, "calls": len(timing.seconds)},
            "times_of_exact": ratio(timing, measured[REFERENCE]).p50,
            "unet_gflop_per_s": gflop_per_s,
            "ceiling_gflop_per_s": ceilings[one.dtype],
            "ceiling_share": gflop_per_s / ceilings[one.dtype],
        }
        if self.energy is not None:
            work = partial(edit, self._settings(cell), cell.batch)
            detail["joules_per_edit"] = joules(work, self.energy, self.synchronize) / cell.batch
        name = f"{self.name}.{cell.size}.{cell.batch}.{cell.steps}.{one.key}"
        return Row(name, cell.batch / p50, "edits/s", "higher", None, detail)

    def _settings(self, cell: Cell) -> Settings:
        steps = 2 if self.bench.quick else cell.steps
        return Settings(cell.size, steps, self.model.text_guidance, self.model.image_guidance, self.job.device)

    def _gflop(self, cell: Cell, one: Contestant | None = None) -> float:
        """Of the UNet in a call of a contestant, or of one with three rows and the cell's steps."""
        rows, steps = (3, None) if one is None else (one.rows, one.steps)
        key = cell.size, rows
        if key not in self._counted:
            self._counted[key] = unet_gflop(Shape(self.model.name, self.model.unet, {}, {}), cell.size // 8, rows)
        return cell.batch * (steps or self._settings(cell).steps) * self._counted[key]

    def _ceiling(self, dtype: str) -> float:
        return matmul_ceiling(self.device, getattr(torch, dtype), self.bench.quick)["gflops"]


def _prepared(entered: list[Contestant], job: Job, bench: Bench, not_run: dict[str, str]) -> list[Contestant]:
    """Those whose conversion succeeds; each conversion is made once."""
    outcomes: dict[Callable[[Job], None], str | None] = {}
    for one in entered:
        if one.prepare is not None and one.prepare not in outcomes:
            bench.watching(f"preparing: {one.title}")
            try:
                one.prepare(job)
                outcomes[one.prepare] = None
            except Exception as error:  # noqa: BLE001  # as a peer's failure
                outcomes[one.prepare] = _said(error)
        if one.prepare is not None and (why := outcomes[one.prepare]):
            not_run[one.title] = why
    return [one for one in entered if one.title not in not_run]


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def _free_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 1e9
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024 / 1e9
