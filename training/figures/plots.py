"""The figures as matplotlib draws them, from what results files hold."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ip2p_fast.benchmarks.results import Row
from ip2p_fast.errors import BadInput, MissingExtra

from ..metrics.bootstrap import bootstrap_interval
from ..pocket.scene import ATTRIBUTES
from ..pocket.split import KINDS
from .curve import Curve
from .kinds import HARD
from .scoring import MEASURES

ENDINGS = (".png", ".pdf", ".svg")
_COLOURS = ("#3b6ea5", "#c4622d", "#4b8b5a", "#8a5a9e", "#6b7280", "#b08a1e")
_INK, _GREY, _ALARM = "#1f2430", "#6b7280", "#c62828"
_PANELS = (("direction", "image"), ("success", "kept"), ("success", "psnr"))
"""x and y of the panels of curves, where there are such measures."""


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure in the form of the file's ending, whole or not at all. Raises BadInput as `require_ending`."""
    require_ending(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    # no date in the file: the same figures give the same bytes
    metadata = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix.lower(), {})
    figure.savefig(partial, format=path.suffix.lower()[1:], metadata=metadata)
    partial.replace(path)


def require_ending(path: Path) -> None:
    """Raises BadInput for a figure's file that is none of ENDINGS."""
    if path.suffix.lower() not in ENDINGS:
        raise BadInput(f"{path} is no name for a figure: it ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")


def draw_curves(curves: Sequence[Curve]) -> Any:
    """What is kept of the input against how far the instruction is followed: a line a curve, with 95% bands."""
    panels = [panel for panel in _PANELS if all(set(panel) <= set(curve.measures) for curve in curves)]
    figure = _figure(5.2 * len(panels), 4.4)
    for number, (axes, (across, up)) in enumerate(zip(_axes(figure, 1, len(panels)), panels, strict=True)):
        for colour, curve in zip(_cycle(len(curves)), curves, strict=True):
            _draw_curve(axes, curve, across, up, colour, label=curve.name if not number else None)
        axes.set_xlabel(_label(across))
        axes.set_ylabel(_label(up))
    figure.axes[0].legend(frameon=False, fontsize=9)
    return figure


def draw_limits(rows: Sequence[Row]) -> Any:
    """Bars with 95% intervals: edits of each kind that do as asked, and that do so and keep the rest."""
    shares = {(row.detail["kind"], row.detail["aspect"]): row for row in rows if "aspect" in row.detail}
    kinds = sorted({kind for kind, _ in shares}, key=lambda kind: -shares[kind, "both"].value)
    figure = _figure(8.6, 4.2)
    (axes,) = _axes(figure, 1, 1)
    for offset, aspect, label, alpha in ((-0.2, "success", "as asked", 0.45), (0.2, "both", "and the rest kept", 1.0)):
        for place, kind in enumerate(kinds):
            row = shares[kind, aspect]
            low, high = row.detail["interval"]
            colour = _ALARM if kind in HARD else _COLOURS[0]
            axes.bar(place + offset, row.value, 0.38, color=colour, alpha=alpha, label=label if not place else None)
            error = [[max(0.0, row.value - low)], [max(0.0, high - row.value)]]  # files hold rounded numbers
            axes.errorbar(place + offset, row.value, error, color=_INK, linewidth=1, capsize=2)
    axes.set_xticks(range(len(kinds)), kinds)
    for tick, kind in zip(axes.get_xticklabels(), kinds, strict=True):
        tick.set_color(_ALARM if kind in HARD else _INK)
    axes.set(ylim=(0, 1.02), ylabel="share of edits")
    figure.legend(frameon=False, fontsize=9, loc="outside upper right", ncols=2)
    return figure


def draw_bias(rows: Sequence[Row]) -> Any:
    """Kind of edit by attribute: how often it changes unasked, in per cent; under it, by the autoencoder alone."""
    cells = {(row.detail["kind"], row.detail["attribute"]): row for row in rows if "attribute" in row.detail}
    drifts = {row.detail["drift_of"]: row for row in rows if "drift_of" in row.detail}
    shares = np.full((len(KINDS), len(ATTRIBUTES)), np.nan)
    for (kind, attribute), row in cells.items():
        shares[KINDS.index(kind), list(ATTRIBUTES).index(attribute)] = row.value
    figure = _figure(9.2, 6.4)
    (axes,) = _axes(figure, 1, 1)
    axes.imshow(shares, cmap="Reds", vmin=0, vmax=max(0.2, float(np.nanmax(shares))), aspect="auto")
    for (kind, attribute), row in cells.items():
        place = list(ATTRIBUTES).index(attribute), KINDS.index(kind)
        dark = row.value > 0.6 * max(0.2, float(np.nanmax(shares)))
        text = f"{row.value:.0%}\n({row.detail['autoencoder']:.0%})"
        axes.text(*place, text, ha="center", va="center", fontsize=8, color="white" if dark else _INK)
    labels = [f"{attribute}\n{_drift(drifts.get(attribute))}" for attribute in ATTRIBUTES]
    axes.set_xticks(range(len(ATTRIBUTES)), labels, fontsize=8.5)
    axes.set_yticks(range(len(KINDS)), KINDS)
    axes.set_ylabel("edit of")
    axes.set_xlabel("attribute that changes unasked (by the autoencoder alone), and the value that gains most")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def draw_pictures(pictures: Sequence[np.ndarray], across: Sequence[str], down: Sequence[str]) -> Any:
    """A table of pictures, [H, W, 3] uint8, row after row, with the names of its columns above and of its rows left."""
    height, width = pictures[0].shape[:2]
    side = 1.35
    figure = _figure(side * len(across) * width / height + 2.0, side * len(down) + 0.4)
    grid = _axes(figure, len(down), len(across))
    for place, (axes, picture) in enumerate(zip(grid, pictures, strict=True)):
        axes.imshow(picture, interpolation="nearest" if max(height, width) <= 128 else "antialiased")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if place < len(across):
            axes.set_title(across[place], fontsize=10)
        if place % len(across) == 0:
            label = textwrap.fill(down[place // len(across)], 22)
            axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, labelpad=8)
    return figure


def _draw_curve(axes: Any, curve: Curve, across: str, up: str, colour: str, label: str | None) -> None:
    """A line through the means with a band or whiskers, the intervals of y, and whiskers of x; its ends are named."""
    x, y = curve.values(across), curve.values(up)  # [points, N]
    means = x.mean(1), y.mean(1)
    x_low, x_high = np.array([bootstrap_interval(values) for values in x]).T
    y_low, y_high = np.array([bootstrap_interval(values) for values in y]).T
    axes.hlines(means[1], x_low, x_high, color=colour, alpha=0.35, linewidth=1)
    steps = np.diff(means[0])
    if (steps > 0).all() or (steps < 0).all():
        axes.fill_between(means[0], y_low, y_high, color=colour, alpha=0.15, linewidth=0)
    else:  # a line that turns back has no band
        axes.vlines(means[0], y_low, y_high, color=colour, alpha=0.35, linewidth=1)
    axes.plot(*means, color=colour, marker="o", markersize=4, linewidth=1.6, label=label)
    for point in {0, len(curve.points) - 1}:
        said = f"{curve.knob} {curve.points[point].at:g}"
        place = float(means[0][point]), float(means[1][point])
        axes.annotate(said, place, xytext=(4, 4), textcoords="offset points", fontsize=7.5, color=colour)


def _drift(row: Row | None) -> str:
    return f"to {row.detail['to']} {row.value:+.1%}" if row is not None and row.value > 0 else "no drift"


def _label(measure: str) -> str:
    unit = MEASURES[measure].unit
    return f"{MEASURES[measure].label}, dB" if unit == "dB" else MEASURES[measure].label


def _cycle(count: int) -> list[str]:
    return [_COLOURS[place % len(_COLOURS)] for place in range(count)]


def _figure(width: float, height: float) -> Any:
    """Raises MissingExtra where matplotlib is absent."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("drawing figures", "train") from error
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Any, rows: int, columns: int) -> list[Any]:
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_GREY, labelsize=9)
    return grid
