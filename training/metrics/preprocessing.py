"""What a vision tower is given: a resized, centre-cropped square, with the mean and deviation its folder names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# ImageNet's, for a folder that does not say.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Feed:
    """side: of the square, in pixels; None where the folder names none. mean, std: of a channel, for values in 0..1."""

    side: int | None
    mean: Sequence[float] = _MEAN
    std: Sequence[float] = _STD


def square(picture: np.ndarray, side: int, short: int | None = None) -> np.ndarray:
    """The shorter side brought to `short` (bicubic), then the centre side x side: CLIP's and DINO's own preparation.

    The crop begins at round((size - side) / 2), as torchvision's. CLIP's `short` is the side itself, DINO's is 256 for
    a side of 224.

    Args:
        picture: [H, W, 3] uint8.
        side, short: in pixels; `short` is at least the side, and the side itself where it is None.

    Returns:
        [side, side, 3] uint8.
    """
    short = short or side
    height, width = picture.shape[:2]
    least = min(height, width)
    if least != short:
        size = (short * width // least, short * height // least)
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    top, left = (round((size - side) / 2) for size in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def feed_of(folder: str) -> Feed:
    """What preprocessor_config.json of a folder or hub id says; ImageNet's mean and deviation where there is none."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(folder, "preprocessor_config.json")
        config = json.loads(Path(str(path)).read_text(encoding="utf-8"))
    except OSError:
        return Feed(None)
    side = _side(config.get("crop_size")) or _side(config.get("size"))
    return Feed(side, config.get("image_mean", _MEAN), config.get("image_std", _STD))


def _side(size: Any) -> int | None:
    """Of the forms that transformers has written: 224, {"height": 224, "width": 224}, {"shortest_edge": 224}."""
    if isinstance(size, dict):
        size = size.get("height", size.get("shortest_edge"))
    return size if isinstance(size, int) else None
