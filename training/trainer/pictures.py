"""A record's two pictures as pixels: scaled, cropped and mirrored alike, in the shape of their batch."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

from ip2p_fast.errors import BadInput
from ip2p_fast.images import load_image

from ..dataset.forms.record import PairRecord
from .lanes import aspect

MOST_ASPECT = 2.0
"""Of the longer to the shorter side of a bucket."""


def shapes_of(resolution: int, multiple: int) -> list[tuple[int, int]]:
    """The buckets (width, height): for each width the tallest of at most resolution^2 pixels, sides in multiples.

    Raises:
        BadInput: a resolution that is no multiple, so that there is no square one of its size.
    """
    require_multiple(resolution, multiple)
    longest = int(resolution * math.sqrt(MOST_ASPECT))
    widths = range(multiple, longest + 1, multiple)
    shapes = [(width, resolution**2 // width // multiple * multiple) for width in widths]
    return [(w, h) for w, h in shapes if h and 1 / MOST_ASPECT <= w / h <= MOST_ASPECT]


def require_multiple(resolution: int, multiple: int) -> None:
    """Raises BadInput, naming the nearest that will do."""
    if resolution % multiple:
        nearest = max(1, round(resolution / multiple)) * multiple
        raise BadInput(f"resolution is {resolution}: this model needs multiples of {multiple}, as {nearest}")


def shape_for(records: Iterable[PairRecord], shapes: list[tuple[int, int]]) -> tuple[int, int]:
    """The bucket whose aspect is nearest to the mean of the records', in logarithms."""
    wanted = float(np.mean([math.log(aspect(record)) for record in records]))
    return min(shapes, key=lambda shape: abs(math.log(shape[0] / shape[1]) - wanted))


def pixels_of(
    record: PairRecord, shape: tuple[int, int], rng: np.random.Generator | None, zoom: float = 1.0, flip: float = 0.0
) -> np.ndarray:
    """Both pictures, the same part of each: uint8 [2, H, W, 3].

    Args:
        shape: (width, height).
        rng: draws the part and whether it is mirrored; None takes the middle of the largest part, as it is.
        zoom, flip: as of `Recipe`.

    Raises:
        BadInput: a picture that cannot be decoded, or two of different sizes.
    """
    pair = [_loaded(data, name) for data, name in ((record.input_image, "input"), (record.edited_image, "edited"))]
    if pair[0].size != pair[1].size:
        (w, h), (w2, h2) = pair[0].size, pair[1].size
        raise BadInput(f"sizes: {w}x{h} before the edit, {w2}x{h2} after it")
    width, height = pair[0].size
    scale = max(shape[0] / width, shape[1] / height)
    if rng is not None:
        scale *= rng.uniform(1.0, zoom)
    part_width, part_height = min(width, shape[0] / scale), min(height, shape[1] / scale)
    across, down = (0.5, 0.5) if rng is None else rng.random(2)
    left, top = across * (width - part_width), down * (height - part_height)
    mirrored = rng is not None and rng.random() < flip
    # one resampling from the part's corners, which need not lie on pixels
    box = (left, top, min(width, left + part_width), min(height, top + part_height))
    parts = [picture.resize(shape, Image.Resampling.LANCZOS, box=box) for picture in pair]
    return np.stack([np.asarray(ImageOps.mirror(part) if mirrored else part) for part in parts])


def _loaded(data: bytes, name: str) -> Image.Image:
    try:
        return load_image(data)
    except BadInput as error:
        raise BadInput(f"{name} picture: {error}") from error
