"""A curve: one method swept over one setting, edit by edit, and how it lies in a results file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ip2p_fast.benchmarks.results import Row
from ip2p_fast.errors import BadInput

from ..metrics.bootstrap import bootstrap_interval
from .scoring import MEASURES


@dataclass(frozen=True)
class Point:
    """One setting. values: of MEASURES by name, [N] of the same N edits at every point of a figure."""

    at: float
    values: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Curve:
    """name: of the method or the model. knob: what is swept. settings: what is not."""

    name: str
    knob: str
    points: tuple[Point, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def values(self, measure: str) -> np.ndarray:
        """[points, N]. Raises BadInput where a point lacks the measure."""
        if measure not in self.measures:
            raise BadInput(f"the curve {self.name} has no {measure}, only {', '.join(self.measures)}")
        return np.stack([point.values[measure] for point in self.points])

    @property
    def measures(self) -> tuple[str, ...]:
        """Those of MEASURES that every point has."""
        return tuple(name for name in MEASURES if all(name in point.values for point in self.points))

    @property
    def edits(self) -> int:
        """Of each point."""
        return len(next(iter(self.points[0].values.values())))


def curve_rows(figure: str, curves: Iterable[Curve]) -> list[Row]:
    """A row for each measure of each point: its mean, the 95% bootstrap interval, and the value of every edit."""
    rows = []
    for curve in curves:
        for point in curve.points:
            for measure in curve.measures:
                values, of = point.values[measure], MEASURES[measure]
                low, high = bootstrap_interval(values)
                detail = {
                    "what": f"{of.label}: {curve.name}, {curve.knob} {point.at:g}",
                    "curve": curve.name,
                    "knob": curve.knob,
                    "at": point.at,
                    "measure": measure,
                    "interval": [low, high],
                    "edits": len(values),
                    "settings": dict(curve.settings),
                    "values": " ".join(f"{value:.4g}" for value in values),
                }
                name = ".".join(_slug(part) for part in (figure, curve.name, f"{curve.knob} {point.at:g}", measure))
                rows.append(Row(name, float(values.mean()), of.unit, "higher", None, detail))
    return rows


def read_curves(rows: Iterable[Row], source: str) -> list[Curve]:
    """The inverse of `curve_rows`, in the file's order; rows of other kinds are passed over.

    Raises:
        BadInput: a row that says it is of a curve and lacks something; `source` is named.
    """
    curves: dict[str, dict[float, dict[str, np.ndarray]]] = {}
    known: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for row in rows:
        if "curve" not in row.detail:
            continue
        try:
            name, at, measure = row.detail["curve"], float(row.detail["at"]), row.detail["measure"]
            values = np.array([float(value) for value in row.detail["values"].split()])
            known[name] = row.detail["knob"], row.detail["settings"]
        except (KeyError, ValueError, AttributeError) as error:
            raise BadInput(f"{source}: row {row.id} is no point of a curve: {error!r}") from error
        curves.setdefault(name, {}).setdefault(at, {})[measure] = values
    return [
        Curve(name, known[name][0], tuple(Point(at, values) for at, values in points.items()), known[name][1])
        for name, points in curves.items()
    ]


def curve_table(curves: Iterable[Curve]) -> str:
    """A Markdown table: a line for each point, with means and 95% intervals."""
    curves = list(curves)
    measures = [name for name in MEASURES if any(name in curve.measures for curve in curves)]
    lines = [
        "| curve | setting | edits | " + " | ".join(MEASURES[name].label for name in measures) + " |",
        "| --- | --- | --- |" + " --- |" * len(measures),
    ]
    for curve in curves:
        for point in curve.points:
            cells = [_cell(point.values.get(name), MEASURES[name].unit) for name in measures]
            lines.append(f"| {curve.name} | {curve.knob} {point.at:g} | {curve.edits} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: np.ndarray | None, unit: str) -> str:
    if values is None:
        return ""
    numbers = (float(values.mean()), *bootstrap_interval(values))
    form = {"share": ".0%", "dB": ".1f"}.get(unit, ".3f")
    mean, low, high = (format(number, form) for number in numbers)
    return f"{mean} [{low}, {high}]"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "_"
