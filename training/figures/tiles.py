"""Pictures inside a results file: one PNG of all of them side by side, as text, so that figures need no model."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ip2p_fast.errors import BadInput
from ip2p_fast.images import fit

SIDE = 192
"""Of a tile's longer side at most, in pixels: results files are kept in the repository."""


def pack_tiles(pictures: Sequence[np.ndarray]) -> dict[str, Any]:
    """Pictures [H, W, 3] uint8, all at the size of the first or, where that is large, at SIDE -> what JSON can hold."""
    first = Image.fromarray(pictures[0])
    scale = min(1.0, SIDE / max(first.size))
    size = (max(1, round(first.width * scale)), max(1, round(first.height * scale)))
    tiles = [picture if picture.size == size else fit(picture, size) for picture in map(Image.fromarray, pictures)]
    strip = np.concatenate([np.asarray(tile) for tile in tiles], axis=1)  # [h, N w, 3]
    file = io.BytesIO()
    Image.fromarray(strip).save(file, "PNG", optimize=True)
    return {"count": len(tiles), "png": base64.b64encode(file.getvalue()).decode("ascii")}


def unpack_tiles(packed: Mapping[str, Any], source: str) -> list[np.ndarray]:
    """The inverse of `pack_tiles`: [h, w, 3] uint8 each. Raises BadInput, naming `source`, for anything else."""
    try:
        strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(packed["png"]))).convert("RGB"))
        return np.split(strip, packed["count"], axis=1)
    except (KeyError, TypeError, ValueError, OSError, ZeroDivisionError) as error:
        raise BadInput(f"{source}: its pictures cannot be read: {error!r}") from error
