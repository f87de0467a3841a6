"""Plots that know which results they were drawn from: a digest of the rows is in the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from .results import Results

_DIGEST = "Results"


def save(figure: Any, path: Path, results: Results) -> None:
    """Writes a matplotlib figure as PNG."""
    from matplotlib import pyplot

    figure.savefig(path, dpi=120, metadata={_DIGEST: _digest(results)})
    pyplot.close(figure)


def is_of(path: Path, results: Results) -> bool:
    """Whether the plot is there and was drawn from these results."""
    try:
        with Image.open(path) as plot:
            return plot.info.get(_DIGEST) == _digest(results)
    except OSError:
        return False


def subplots(*arguments: Any, **options: Any) -> Any:
    """matplotlib's, without a display."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(*arguments, **options, layout="constrained")


def stacked_bars(
    bars: Mapping[str, Mapping[str, Mapping[str, float]]], parts: Sequence[str], unit: str, path: Path, results: Results
) -> None:
    """Draws a panel a group and a bar a title; bars[group][title] has the value of every part."""
    figure, panels = subplots(len(bars), 1, figsize=(8, 1 + 1.6 * len(bars)), squeeze=False)
    for (group, titles), axes in zip(bars.items(), panels[:, 0], strict=True):
        left = [0.0] * len(titles)
        for part in parts:
            widths = [values[part] for values in titles.values()]
            axes.barh(list(titles), widths, left=left, label=part)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.invert_yaxis()
        axes.set(title=group, xlabel=unit)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside right upper")
    save(figure, path, results)


def three_digits(value: float) -> str:
    """As a document shows it, never as a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _digest(results: Results) -> str:
    rows = [asdict(row) for row in results.rows]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
