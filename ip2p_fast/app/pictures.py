"""Between files and pictures: what is uploaded, painted, shown on the way and taken home."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from PIL import Image, ImageChops

from ..checkpoints import POCKET
from ..errors import BadInput
from ..images import load_image
from ..serving.pictures import encode

MAX_PIXELS = 32_000_000
"""Of a picture that is uploaded, width x height."""
MAX_SIDE = 2048
"""Longer side of a picture on the page; larger ones are made smaller when they are loaded."""

_SHOWN = 512  # longer side below which a picture is enlarged for the eye
_THUMBNAIL = 192
_PREVIEW = 768


@dataclass(frozen=True)
class Sample:
    """A picture that comes with the package, and an instruction that suits it."""

    path: Path
    caption: str
    instruction: str


@cache
def samples() -> tuple[Sample, ...]:
    folder = POCKET / "samples"
    listed = json.loads((folder / "samples.json").read_text())
    return tuple(Sample(folder / one["file"], one["caption"], one["instruction"]) for one in listed)


def read(path: str | Path, name: str = "") -> Image.Image:
    """An uploaded picture as RGB, its longer side at most MAX_SIDE. Raises BadInput that names no file of the server.

    name: the file's name where the person has it.
    """
    try:
        picture = load_image(Path(path), MAX_PIXELS)
    except BadInput as error:
        raise BadInput(str(error).replace(str(path), name or "this file")) from None
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return picture


def shown(picture: Image.Image) -> Image.Image:
    """As large as a page wants it: small pictures are enlarged by a whole number."""
    factor = max(1, _SHOWN // max(picture.size))
    if factor == 1:
        return picture
    width, height = picture.size
    return picture.resize((width * factor, height * factor), Image.Resampling.BICUBIC)


def thumbnail(picture: Image.Image) -> Image.Image:
    """Small, for a strip of many."""
    small = shown(picture).copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    return small


def data_url(picture: Image.Image) -> str:
    """A JPEG within the text of a page, for what is shown for a moment only."""
    small = shown(picture).copy()
    small.thumbnail((_PREVIEW, _PREVIEW))
    data = base64.b64encode(encode(small, "jpeg", 85)).decode("ascii")
    return f"data:image/jpeg;base64,{data}"


def painted(value: Mapping[str, Any] | None, size: tuple[int, int]) -> Image.Image | None:
    """The mask that was painted: L of `size`, white where the brush was; None where it was nowhere.

    value: of the page's painter; each of its `layers` is RGBA, transparent where nothing was painted.
    """
    layers: Sequence[Image.Image] = (value or {}).get("layers") or ()
    mask: Image.Image | None = None
    for layer in layers:
        alpha = layer.convert("RGBA").getchannel("A")
        mask = alpha if mask is None else ImageChops.lighter(mask, alpha.resize(mask.size))
    if mask is None or mask.getbbox() is None:
        return None
    return mask.resize(size, Image.Resampling.BILINEAR)


def save_png(picture: Image.Image, folder: str | Path, name: str) -> str:
    """The path of a new PNG below `folder`, named so that a person knows it again."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "picture"
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(mkdtemp(dir=folder)) / f"{readable}.png"
    path.write_bytes(encode(picture, "png", 100))
    return str(path)
