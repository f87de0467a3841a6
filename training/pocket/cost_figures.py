"""The results file of quality against cost, and the plot and the table that are drawn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ip2p_fast.benchmarks.results import Row, read_results
from ip2p_fast.benchmarks.table import between_markers
from ip2p_fast.errors import BadInput, MissingExtra

from ..metrics.bootstrap import bootstrap_interval
from .cost import Measured

BEGIN, END = "<!-- cost:begin -->", "<!-- cost:end -->"
_PREFIX = "pocket.cost."
_COSTS = {"rows": "row evaluations an edit", "milliseconds": "milliseconds an edit, one at a time"}


def cost_rows(measured: Sequence[Measured]) -> tuple[Row, ...]:
    """A row for each variant: the share of edits that do both, and in its detail all else that was measured.

    `change` is the mean difference to the first variant on the same edits; intervals are 95% bootstrap intervals.
    """
    return tuple(_row(one, measured[0]) for one in measured)


def read_cost(path: Path) -> tuple[Row, ...]:
    """The rows of a results file of `record_cost`.

    Raises:
        BadInput: it is another file.
    """
    rows = read_results(path).rows
    if wrong := [row.id for row in rows if not row.id.startswith(_PREFIX) or not _COSTS.keys() <= row.detail.keys()]:
        raise BadInput(f"{path} is no results file of ip2p-fast evaluate cost: it has a row {wrong[0]}")
    return rows


def frontier(rows: Sequence[Row], cost: str) -> list[Row]:
    """Rows that no other equals or beats at the same or a lower cost, cheapest first (Pareto)."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (cost_of(row, cost), -row.value)):
        if not best or row.value > best[-1].value:
            best.append(row)
    return best


def cost_of(row: Row, cost: str) -> float:
    """`rows`, or the median of `milliseconds`."""
    value = row.detail[cost]
    return float(value["p50"] if isinstance(value, Mapping) else value)


def draw_cost(path: Path, rows: Sequence[Row]) -> None:
    """Writes the plot: two panels, quality against row evaluations and against milliseconds, the frontier drawn.

    Raises:
        MissingExtra: matplotlib is absent.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("drawing quality against cost", "train") from error
    figure = Figure(figsize=(14, 15), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    families = list(dict.fromkeys(row.detail["family"] for row in rows))
    panels = list(zip(figure.subplots(2, 1), _COSTS.items(), strict=True))
    for axes, (cost, label) in panels:
        _draw_points(axes, rows, families, cost, label)
    panels[0][0].legend(loc="lower right", fontsize=9)
    canvas.draw()  # places the axes, so that labels can be placed in them
    for axes, (cost, _) in panels:
        _draw_labels(axes, canvas.get_renderer(), rows, cost)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_cost_table(document: Path, results: Path) -> None:
    """Redraws the table between the marker lines of a document.

    Raises:
        BadInput: the document lacks the markers, or the results file is faulty.
    """
    rows, found = read_cost(results), read_results(results)
    on_both = {row.id for row in frontier(rows, "rows")}, {row.id for row in frontier(rows, "milliseconds")}
    lines = [
        "| variant | as asked | rest kept | both | change of both | PSNR, dB | rows | ms | frontier |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        detail = row.detail
        shares = " | ".join(f"{share:.1%}" for share in (detail["target_success"], detail["preservation"], row.value))
        low, high = (100 * bound for bound in detail["change_interval"])
        change = f"{100 * detail['change']:+.1f} ({low:+.1f} to {high:+.1f})"
        marks = ", ".join(name for name, best in zip(("rows", "ms"), on_both, strict=True) if row.id in best)
        costs = f"{cost_of(row, 'rows'):.1f} | {cost_of(row, 'milliseconds'):.0f}"
        lines.append(f"| {detail['label']} | {shares} | {change} | {detail['psnr_db']:.1f} | {costs} | {marks} |")
    first = rows[0].detail
    lines += [
        "",
        f"{first['edits']} held-out edits; {first['backend']}; measured {found.created[:10]} on "
        f"{found.machine.get('cpu') or 'an unknown processor'}. Change: in points, to {first['label']} on the same "
        "edits, with its 95% interval. Rows: a shallow row counts as its share of a whole row's FLOPs.",
        "",
        f"Again: `{found.rerun}`",
    ]
    document.write_text(between_markers(document, "\n".join(lines), BEGIN, END), encoding="utf-8")


def _row(one: Measured, first: Measured) -> Row:
    variant, both = one.variant, (one.success & one.kept).astype(np.float64)
    change = both - (first.success & first.kept)
    detail = {
        "what": f"edits that do both: {variant.label}",
        "label": variant.label,
        "family": variant.family,
        "settings": dict(variant.settings),
        "target_success": float(one.success.mean()),
        "preservation": float(one.kept.mean()),
        "psnr_db": one.psnr_db,
        "interval": list(bootstrap_interval(both)),
        "change": float(change.mean()),
        "change_interval": list(bootstrap_interval(change)),
        "rows": one.rows,
        "row_evaluations": one.row_evaluations,
        "shallow_evaluations": one.shallow_evaluations,
        "milliseconds": one.milliseconds.as_json(),
        "edits": len(both),
        "backend": one.backend,
    }
    return Row(f"{_PREFIX}{variant.name}", float(both.mean()), "share", "higher", None, detail)


def _draw_points(axes: Any, rows: Sequence[Row], families: Sequence[str], cost: str, label: str) -> None:
    for number, family in enumerate(families):
        of_family = [row for row in rows if row.detail["family"] == family]
        values = np.array([row.value for row in of_family])
        spread = np.abs(np.array([row.detail["interval"] for row in of_family]).T - values)
        colour = f"C{number}"
        axes.errorbar(
            [cost_of(row, cost) for row in of_family],
            values,
            yerr=spread,
            fmt="o",
            markersize=6,
            color=colour,
            ecolor=(colour, 0.2),
            label=family,
        )
    best = frontier(rows, cost)
    costs = [cost_of(row, cost) for row in best] + [max(cost_of(row, cost) for row in rows)]
    reached = [row.value for row in best] + [best[-1].value]
    axes.step(costs, reached, where="post", color="0.5", zorder=0, label="frontier")
    axes.set_xscale("log")
    axes.set(xlabel=label, ylabel="edits that do as asked and keep the rest")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.grid(alpha=0.25)


def _draw_labels(axes: Any, renderer: Any, rows: Sequence[Row], cost: str) -> None:
    """A label a point, at the nearest place around it where no other label and no point is."""
    from matplotlib.text import Text

    points = axes.transData.transform([(cost_of(row, cost), row.value) for row in rows])
    taken: list[Any] = []
    for row in sorted(rows, key=lambda row: cost_of(row, cost)):
        for radius, angle in _PLACES:
            offset = radius * np.cos(angle), radius * np.sin(angle)
            text = axes.annotate(
                row.detail["label"],
                (cost_of(row, cost), row.value),
                xytext=offset,
                textcoords="offset points",
                fontsize=8,
                ha="left" if offset[0] > 0 else "right",
                va="center",
                arrowprops={"arrowstyle": "-", "color": "0.7", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
            )
            text.set_in_layout(False)
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer).padded(2)  # an annotation's own would hold its line too
            inside = axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
            if inside and not box.count_contains(points) and box.count_overlaps(taken) == 0:
                break
            if (radius, angle) != _PLACES[-1]:
                text.remove()
        taken.append(box)


_PLACES = [(radius, np.pi * turn / 12) for radius in range(10, 240, 10) for turn in (1, 11, -1, -11, 4, 8, -4, -8)]
