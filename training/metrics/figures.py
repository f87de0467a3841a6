"""The figures of a benchmark: by case, by group, over all; their table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .benchmarks import Benchmark, Column, Models
from .bootstrap import bootstrap_interval
from .cases import EditCase
from .edited import read_edit

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Figure:
    """Mean of a column over `cases`, and the 95% bootstrap interval of it."""

    mean: float
    low: float
    high: float
    cases: int

    def as_json(self) -> dict[str, Any]:
        interval = [_finite(self.low), _finite(self.high)]
        return {"mean": _finite(self.mean), "interval": interval, "cases": self.cases}


def score_cases(
    benchmark: Benchmark,
    models: Models,
    cases: Iterable[EditCase],
    folder: Path,
    advance: Callable[[int], None] = lambda done: None,
) -> dict[str, tuple[str, dict[str, float]]]:
    """Group and figures by column of every scored case, by its id. `folder` holds the edits.

    Raises:
        BadInput: an edited picture is not there, or cannot be scored.
    """
    found = {}
    for case in cases:
        if case.scored:
            found[case.id] = (case.group, benchmark.score(models, case, read_edit(folder, case.id)))
            advance(len(found))
    return found


def summarise(
    benchmark: Benchmark, found: Mapping[str, tuple[str, dict[str, float]]], seed: int = 0
) -> dict[str, dict[str, Figure | None]]:
    """Figures by column of every group, sorted by name, and then of all cases ("overall").

    Cases that a column does not score (NaN) are left out of it; a column without cases is None.
    """
    groups = sorted({group for group, _ in found.values()})
    rows: dict[str, list[dict[str, float]]] = {
        group: [scores for name, scores in found.values() if name == group] for group in groups
    }
    rows["overall"] = [scores for _, scores in found.values()]
    return {
        name: {
            column.name: _figure([row.get(column.name, math.nan) for row in scores], seed)
            for column in benchmark.columns
        }
        for name, scores in rows.items()
    }


def report(
    benchmark: Benchmark,
    summary: Mapping[str, Mapping[str, Figure | None]],
    found: Mapping[str, tuple[str, dict[str, float]]],
) -> dict[str, Any]:
    """What --json prints: columns, overall, groups. A column that is not measured is null; an infinite mean "inf"."""
    figures = {
        name: {column: None if figure is None else figure.as_json() for column, figure in row.items()}
        for name, row in summary.items()
    }
    return {
        "cases": len(found),
        "columns": {column.name: column.better for column in benchmark.columns},
        "overall": figures.pop("overall"),
        "groups": figures,
    }


def table(columns: Sequence[Column], summary: Mapping[str, Mapping[str, Figure | None]]) -> str:
    """A row a group and one for all: mean and interval, times the power of ten that stands beside the column's name."""
    head = ["", "cases", *(_heading(column) for column in columns)]
    body = []
    for name, row in summary.items():
        cases = max((figure.cases for figure in row.values() if figure is not None), default=0)
        body.append([name, str(cases), *(_cell(row[column.name], column.power) for column in columns)])
    widths = [max(map(len, texts)) for texts in zip(head, *body, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in [head, *body])
    return "\n".join(line.rstrip() for line in lines)


def _figure(values: list[float], seed: int) -> Figure | None:
    scored = np.array([value for value in values if not math.isnan(value)])
    if not len(scored):
        return None
    return Figure(float(scored.mean()), *bootstrap_interval(scored, seed=seed), len(scored))


def _heading(column: Column) -> str:
    power = f" x10^{column.power}" if column.power else ""
    return f"{column.name}{power} ({'+' if column.better == 'higher' else '-'})"


def _cell(figure: Figure | None, power: int) -> str:
    if figure is None:
        return NOT_MEASURED
    mean, low, high = (value * 10**power for value in (figure.mean, figure.low, figure.high))
    return f"{mean:.4g} [{low:.4g}, {high:.4g}]"


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
