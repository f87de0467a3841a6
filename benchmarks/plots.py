"""Plots that know which results they were drawn from: a digest of the rows is in the file."""

from __future__ import annotations

import hashlib
import json
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


def _digest(results: Results) -> str:
    rows = [asdict(row) for row in results.rows]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
