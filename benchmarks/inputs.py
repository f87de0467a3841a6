"""What is edited: one picture and one instruction for all that is timed."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

INSTRUCTION = "make it night"


@cache
def picture(side: int) -> Image.Image:
    """A smooth random picture, side x side: what it shows is nothing to speed."""
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
