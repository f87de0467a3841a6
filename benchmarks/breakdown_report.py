"""Where a step's time goes, as docs/performance.md has it: a table and stacked bars, drawn from the results file."""

from __future__ import annotations

from pathlib import Path

from . import plots
from .breakdown_kinds import KINDS
from .results import Results

SUITE = "cpu-breakdown"
DOCUMENT, PLOT = Path("docs/performance.md"), Path("docs/performance.png")
BEGIN, END = "<!-- breakdown:begin -->", "<!-- breakdown:end -->"


def table(results: Results) -> str:
    """Milliseconds of a step by kind, a line a contender."""
    lines = [f"| a step of | {' | '.join(KINDS)} | in all |", "| --- " * (len(KINDS) + 2) + "|"]
    for (model, title), (parts, whole) in _steps(results).items():
        cells = " | ".join(f"{parts[kind]:.3g}" for kind in KINDS)
        lines.append(f"| {model}, {title} | {cells} | {whole:.3g} ms |")
    return "\n".join(lines)


def draw(results: Results, path: Path) -> None:
    """A panel a model, a bar a contender."""
    steps = _steps(results)
    models = list(dict.fromkeys(model for model, _ in steps))
    figure, panels = plots.subplots(len(models), 1, figsize=(8, 1 + 1.6 * len(models)), squeeze=False)
    for model, axes in zip(models, panels[:, 0], strict=True):
        titles = [title for name, title in steps if name == model]
        left = [0.0] * len(titles)
        for kind in KINDS:
            widths = [steps[model, title][0][kind] for title in titles]
            axes.barh(titles, widths, left=left, label=kind)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.invert_yaxis()
        axes.set(title=model, xlabel="ms a step of three rows")
    panels[0, 0].legend(fontsize=7)
    plots.save(figure, path, results)


def _steps(results: Results) -> dict[tuple[str, str], tuple[dict[str, float], float]]:
    """By (model, contender): its kinds and the whole step, in milliseconds."""
    steps: dict[tuple[str, str], tuple[dict[str, float], float]] = {}
    for row in results.rows:
        model, kind = row.id.split(".")[2], row.id.split(".")[4].replace("_", " ")
        parts, _ = steps.setdefault((model, row.detail["title"]), ({}, row.detail["step_ms"]))
        parts[kind] = row.value
    return steps
