"""Edits a second over sizes and batches, as docs/performance.md has them: a table, and bars for batches of one size."""

from __future__ import annotations

from pathlib import Path

from . import plots
from .results import Results, Row

SUITE = "cpu-matrix"
DOCUMENT, PLOT = Path("docs/performance.md"), Path("docs/edits_per_second.png")
BEGIN, END = "<!-- matrix:begin -->", "<!-- matrix:end -->"
_SPEED = 5
"""Parts of the id of a row of edits a second: cpu.matrix.SIZE.BATCH.KEY."""


def table(results: Results) -> str:
    """A line a cell, a column a contender."""
    cells = _cells(results)
    titles = list(dict.fromkeys(title for found in cells.values() for title in found))
    lines = [f"| picture, batch | {' | '.join(titles)} |", "| --- " * (len(titles) + 1) + "|"]
    for (size, batch), found in cells.items():
        speeds = " | ".join(f"{found[title].value:.3g}" if title in found else "" for title in titles)
        lines.append(f"| {size}x{size}, {batch} | {speeds} |")
    return "\n".join(lines)


def draw(results: Results, path: Path) -> None:
    """Bars of the smallest size's batches, with p20 to p80."""
    cells = _cells(results)
    smallest = min(size for size, _ in cells)
    shown = {batch: found for (size, batch), found in cells.items() if size == smallest}
    figure, panels = plots.subplots(1, len(shown), figsize=(3.2 * len(shown), 3), sharey=True, squeeze=False)
    for axes, (batch, found) in zip(panels[0], shown.items(), strict=True):
        rows = list(found.values())
        speeds = [row.value for row in rows]
        ends = [
            [row.value - row.detail["p20"] for row in rows],
            [row.detail["p80"] - row.value for row in rows],
        ]
        axes.barh(list(found), speeds, xerr=ends, color=["tab:gray" if "diffusers" in t else "tab:blue" for t in found])
        axes.set(title=f"batch of {batch}", xlabel="edits a second")
        axes.invert_yaxis()
    plots.save(figure, path, results)


def _cells(results: Results) -> dict[tuple[int, int], dict[str, Row]]:
    cells: dict[tuple[int, int], dict[str, Row]] = {}
    for row in results.rows:
        parts = row.id.split(".")
        if len(parts) == _SPEED:
            cells.setdefault((int(parts[2]), int(parts[3])), {})[row.detail["title"]] = row
    return cells
