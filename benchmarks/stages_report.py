"""Where an edit's time goes by stage, as docs/performance.md has it: a table and stacked bars."""

from __future__ import annotations

from pathlib import Path

from . import plots
from .report import Report
from .results import Results
from .stage_names import STAGES

_Edit = tuple[str, str]  # model and settings, contender


def table(results: Results) -> str:
    """Milliseconds of an edit by stage, a line a contender."""
    lines = [f"| an edit of | {' | '.join(STAGES)} | in all |", "| --- " * (len(STAGES) + 2) + "|"]
    for (model, title), (parts, whole) in _edits(results).items():
        cells = " | ".join(plots.three_digits(parts[stage]) for stage in STAGES)
        lines.append(f"| {model}: {title} | {cells} | {plots.three_digits(whole)} ms |")
    return "\n".join(lines)


def draw(results: Results, path: Path) -> None:
    """A panel a model, a bar a contender."""
    bars: dict[str, dict[str, dict[str, float]]] = {}
    for (model, title), (parts, _) in _edits(results).items():
        bars.setdefault(model, {})[title] = parts
    plots.stacked_bars(bars, STAGES, "ms an edit", path, results)


def _edits(results: Results) -> dict[_Edit, tuple[dict[str, float], float]]:
    edits: dict[_Edit, tuple[dict[str, float], float]] = {}
    for row in results.rows:
        detail = row.detail
        parts, _ = edits.setdefault((detail["model"], detail["title"]), ({}, detail["edit_ms"]))
        parts[detail["stage"]] = row.value
    return edits


REPORT = Report("cpu-stages", "stages", Path("docs/performance.md"), table, Path("docs/stages.png"), draw)
