"""What a CLIP's similarities are worth: measured on pairs known to be good, and on pictures that are not pairs.

The pocket world has both: rendered pairs are true by construction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ...pocket.data import draw_pairs
from ...pocket.language import caption, edited_caption
from ..forms.record import Similarities
from .clip_scores import ClipScorer
from .selection import Thresholds


def measure_known_pairs(scorer: ClipScorer, count: int) -> tuple[list[Similarities], list[Similarities]]:
    """Similarities of `count` held-out rendered pairs, and of the same with the picture after of the next pair."""
    pairs = draw_pairs("held-out", count, scorer.side)
    true, unrelated = [], []
    for i in range(count):
        before = caption(pairs.scene(i), np.random.default_rng(i))
        captions = (before, edited_caption(before, pairs.scene(i, after=True)))
        other = pairs.pixels[(i + 1) % count, 1]
        true += scorer.score(captions, [pairs.pixels[i, 0]], [pairs.pixels[i, 1]])
        unrelated += scorer.score(captions, [pairs.pixels[i, 0]], [other])
    return true, unrelated


def draw_distributions(
    true: Sequence[Similarities], unrelated: Sequence[Similarities], thresholds: Thresholds
) -> Image.Image:
    """Histograms of both, with the thresholds between them."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.6), layout="constrained")
    panels = {
        "text_image_0": ("text-image, before", thresholds.text_image),
        "text_image_1": ("text-image, after", thresholds.text_image),
        "direction": ("direction", thresholds.direction),
        "image": ("image", thresholds.image),
    }
    for axes, (name, (title, threshold)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for values, label in ((true, "true pairs"), (unrelated, "unrelated")):
            axes.hist([getattr(one, name) for one in values], bins=40, range=(-1, 1), alpha=0.6, label=label)
        axes.axvline(threshold, color="black", linewidth=1, linestyle="--")
        axes.set_title(title)
    axes.legend(loc="upper left")
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")
