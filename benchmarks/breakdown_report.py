"""Where a step's time goes, as docs/performance.md has it: a table and stacked bars, drawn from the results file."""

from __future__ import annotations

from pathlib import Path

from . import plots
from .breakdown_kinds import KINDS
from .report import Report
from .results import Results


def table(results: Results) -> str:
    """Milliseconds of a step by kind, a line a contender."""
    lines = [f"| a step of | {' | '.join(KINDS)} | in all |", "| --- " * (len(KINDS) + 2) + "|"]
    for (model, title), (parts, whole) in _steps(results).items():
        cells = " | ".join(plots.three_digits(parts[kind]) for kind in KINDS)
        lines.append(f"| {model}, {title} | {cells} | {plots.three_digits(whole)} ms |")
    return "\n".join(lines)


def draw(results: Results, path: Path) -> None:
    """A panel a model, a bar a contender."""
    bars: dict[str, dict[str, dict[str, float]]] = {}
    for (model, title), (parts, _) in _steps(results).items():
        bars.setdefault(model, {})[title] = parts
    plots.stacked_bars(bars, KINDS, "ms a step of three rows", path, results)


def _steps(results: Results) -> dict[tuple[str, str], tuple[dict[str, float], float]]:
    """By (model, contender): its kinds and the whole step, in milliseconds."""
    steps: dict[tuple[str, str], tuple[dict[str, float], float]] = {}
    for row in results.rows:
        model, kind = row.id.split(".")[2], row.id.split(".")[4].replace("_", " ")
        parts, _ = steps.setdefault((model, row.detail["title"]), ({}, row.detail["step_ms"]))
        parts[kind] = row.value
    return steps


REPORT = Report("cpu-breakdown", "breakdown", Path("docs/performance.md"), table, Path("docs/performance.png"), draw)
