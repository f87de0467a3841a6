"""Histograms of what is known of a data set's pairs: the four similarities, p and cfg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ip2p_fast.errors import MissingExtra

_BINS = 40
_BAR, _LIMIT, _GREY = "#3b6ea5", "#c62828", "#6b7280"

# Name, title, and the range drawn, which is widened where values lie outside; None: as the values are.
_PANELS: tuple[tuple[str, str, tuple[float, float] | None], ...] = (
    ("text_image_0", "text-image similarity, before", (0.0, 0.5)),
    ("text_image_1", "text-image similarity, after", (0.0, 0.5)),
    ("direction", "direction similarity", (-0.25, 0.75)),
    ("image", "image-image similarity", (0.0, 1.0)),
    ("p", "p, share of steps with shared attention", (0.0, 1.0)),
    ("cfg", "cfg, guidance scale", None),
)


def draw_histograms(values: Mapping[str, Sequence[float]], thresholds: Mapping[str, float]) -> Image.Image:
    """Six panels, each with its number of values, their mean, and a line at its threshold where there is one.

    Args:
        values: by name: text_image_0, text_image_1, direction, image, p, cfg; what is absent is drawn empty.
        thresholds: by name, of any of them.

    Raises:
        MissingExtra: matplotlib is absent.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingExtra("drawing histograms", "train") from error
    figure = Figure(figsize=(13, 7), dpi=110, layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12))
    for axes, (name, title, drawn) in zip(figure.subplots(2, 3).flat, _PANELS, strict=True):
        known = np.asarray(values.get(name, ()), dtype=np.float64)
        _draw_panel(axes, known[np.isfinite(known)], title, drawn, thresholds.get(name))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _draw_panel(
    axes: Any, known: np.ndarray, title: str, drawn: tuple[float, float] | None, limit: float | None
) -> None:
    axes.set_title(title, fontsize=12, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_GREY, labelsize=9)
    if not len(known):
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", va="center", color=_GREY, fontsize=12)
        return
    low, high = drawn or (known.min(), known.max())
    low, high = min(low, known.min()), max(high, known.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    axes.hist(known, bins=np.linspace(low, high, _BINS + 1), color=_BAR)
    axes.set_xlim(low, high)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("pairs", color=_GREY, fontsize=9)
    said = f"{len(known):,} pairs, mean {known.mean():.3g}"
    if limit is not None:
        axes.axvline(limit, color=_LIMIT, linewidth=1.5)
        said += f", {np.mean(known >= limit):.0%} at or above {limit:g}"
    axes.set_xlabel(said, color=_GREY, fontsize=10)
