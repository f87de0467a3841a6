"""The matrix as documents have it: a table of speeds, one of each contestant's costs, and bars of the first cells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ip2p_fast.errors import BadInput

from . import plots
from .report import Report
from .results import Results, Row

_OURS = "ours"
_Cell = tuple[int, int, int]  # size, batch, steps


def suite(device: str, model: str) -> str:
    """The name of a matrix's results file."""
    word = re.sub(r"[^a-z0-9]+", "-", Path(model).name.lower()).strip("-")
    return f"{device}-matrix" if model == "pocket" else f"{device}-matrix-{word}"


def table(results: Results) -> str:
    """A line a cell and a column a contestant; then a line a contestant; then what was not run."""
    cells = _cells(results)
    titles = list(dict.fromkeys(title for found in cells.values() for title in found))
    lines = [f"| picture, batch, steps | {' | '.join(titles)} |", "| --- " * (len(titles) + 1) + "|"]
    for (size, batch, steps), found in cells.items():
        speeds = " | ".join(f"{plots.three_digits(found[title].value)}" if title in found else "" for title in titles)
        lines.append(f"| {size}x{size}, {batch}, {steps} | {speeds} |")
    return "\n".join([*lines, "", *_contestants(results, next(iter(cells.values()))), "", *_not_run(results)])


def draw(results: Results, path: Path) -> None:
    """Bars of the first size's batches at the first number of steps, with p20 to p80."""
    cells = _cells(results)
    size, _, steps = next(iter(cells))
    shown = {cell[1]: found for cell, found in cells.items() if (cell[0], cell[2]) == (size, steps)}
    figure, panels = plots.subplots(1, len(shown), figsize=(2 + 2.8 * len(shown), 3.2), sharey=True, squeeze=False)
    for axes, (batch, found) in zip(panels[0], shown.items(), strict=True):
        rows = list(found.values())
        speeds = [row.value for row in rows]
        ends = [[row.value - row.detail["p20"] for row in rows], [row.detail["p80"] - row.value for row in rows]]
        colours = ["tab:blue" if title.startswith(_OURS) else "tab:gray" for title in found]
        axes.barh(list(found), speeds, xerr=ends, color=colours)
        axes.set(title=f"{size}x{size}, {steps} steps, batch of {batch}", xlabel="edits a second")
        axes.title.set_fontsize(8)
        axes.tick_params(labelsize=7)
    panels[0, 0].invert_yaxis()  # the axes are shared
    plots.save(figure, path, results)


def _contestants(results: Results, first: dict[str, Row]) -> list[str]:
    figures: dict[str, dict[str, float]] = {}
    for row in results.rows:
        figure = row.id.split(".")[3]
        if figure in ("first_edit", "compile", "memory"):
            figures.setdefault(row.detail["title"], {})[figure] = row.value
    heads = ["", "p50", "p95", "p99", "of the ceiling", "first edit", "of it compiling", "peak memory"]
    if energy := any("joules_per_edit" in row.detail for row in first.values()):
        heads.append("energy an edit")
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for title, row in first.items():
        own = figures[title]
        cells = [title, *(_seconds(row.detail["latency_s"][name]) for name in ("p50", "p95", "p99"))]
        cells += [f"{100 * row.detail['ceiling_share']:.0f}%", _seconds(own["first_edit"]), _seconds(own["compile"])]
        cells.append(f"{own['memory']:.2f} GB")
        if energy:
            cells.append(f"{plots.three_digits(row.detail['joules_per_edit'])} J")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _not_run(results: Results) -> list[str]:
    (row,) = [row for row in results.rows if row.id.endswith(".not_run")]
    left: dict[str, Any] = row.detail["not_run"]
    return [f"Not run: {'; '.join(f'{what} ({why})' for what, why in left.items()) or 'nothing'}."]


def _seconds(value: float) -> str:
    return f"{plots.three_digits(value)} s" if value >= 1 else f"{plots.three_digits(1000 * value)} ms"


def _cells(results: Results) -> dict[_Cell, dict[str, Row]]:
    """By cell and title, in the order they were measured in. Raises BadInput for results that have none."""
    cells: dict[_Cell, dict[str, Row]] = {}
    for row in results.rows:
        if (cell := row.detail.get("cell")) is not None:
            cells.setdefault((cell["size"], cell["batch"], cell["steps"]), {})[row.detail["title"]] = row
    if not cells:
        raise BadInput(f"results of `{results.rerun}` have no cells of the matrix: run it again")
    return cells


def _report(model: str, word: str, plot: str) -> Report:
    return Report(suite("cpu", model), word, Path("docs/performance.md"), table, Path("docs") / plot, draw)


REPORTS = (
    _report("pocket", "matrix", "edits_per_second.png"),
    _report("sd15", "matrix-sd15", "edits_per_second_sd15.png"),
)
