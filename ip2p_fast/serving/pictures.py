"""Pictures of strangers: only PNG, JPEG and WebP, and none is decoded before its header says that it is small enough.

Pictures go to the model stretched to the nearest size it can work at, not cropped, so that the result laid back on the
input's own size fits it pixel by pixel.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from ..errors import BadInput
from ..images import load_image, target_size

WRITES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True)
class Canvas:
    """A picture to edit at two sizes.

    full  RGB, at the size of the output
    work  RGB, at the size the model works at
    mask  L at the output's size or None: white where the picture may change
    """

    full: Image.Image
    work: Image.Image
    mask: Image.Image | None = None

    @property
    def work_mask(self) -> Image.Image | None:
        """The mask at the model's size."""
        return None if self.mask is None else self.mask.resize(self.work.size, Image.Resampling.BILINEAR)

    def finish(self, edited: Image.Image) -> Image.Image:
        """The edited picture at the output's size; where the mask is black, the input's own pixels."""
        whole = edited if edited.size == self.full.size else edited.resize(self.full.size, Image.Resampling.LANCZOS)
        return whole if self.mask is None else Image.composite(whole, self.full, self.mask)


def canvas(
    picture: Image.Image, mask: Image.Image | None, size: tuple[int, int] | None, resolution: int, multiple: int
) -> Canvas:
    """The picture at the output's size (its own, or cropped to fill `size`) and at the model's: about `resolution`.

    Raises BadInput for a picture too long for the model.
    """
    if size is not None and size != picture.size:
        picture = ImageOps.fit(picture, size, method=Image.Resampling.LANCZOS)
        mask = None if mask is None else ImageOps.fit(mask, size, method=Image.Resampling.BILINEAR)
    work_size = target_size(*picture.size, resolution, multiple)
    work = picture if work_size == picture.size else picture.resize(work_size, Image.Resampling.LANCZOS)
    return Canvas(picture, work, mask)


def decode(data: bytes, max_pixels: int, max_side: int) -> Image.Image:
    """A file's picture as RGB. Raises BadInput for other formats, damage, too many pixels or too long a side."""
    _require_size(_header_size(data), max_pixels, max_side)
    return load_image(data, max_pixels)


def decode_mask(data: bytes, sense: str, size: tuple[int, int], max_pixels: int, max_side: int) -> Image.Image:
    """A mask as L, white where the picture may change.

    sense: "alpha", OpenAI's: fully transparent may change, opaque may not; "white": white may change, black may not.
    """
    mask_size = _header_size(data)
    _require_size(mask_size, max_pixels, max_side)
    if mask_size != size:
        raise BadInput(
            f"the mask is {mask_size[0]}x{mask_size[1]} and the picture {size[0]}x{size[1]}: make them alike"
        )
    if sense == "white":
        return load_image(data, max_pixels).convert("L")
    load_image(data, max_pixels)  # a damaged file is refused by the same words
    with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as image:
        if not image.has_transparency_data:
            raise BadInput(
                "the mask has no transparency: fully transparent pixels are edited; for a mask that is white there, "
                "send mask_sense=white"
            )
        alpha = np.asarray(image.convert("RGBA"))[:, :, 3]
    return Image.fromarray(255 - alpha)


def encode(picture: Image.Image, file_format: str, quality: int, text: dict[str, str] | None = None) -> bytes:
    """The bytes of a PNG, JPEG or WebP. quality 0 to 100; a PNG has none, and may carry text."""
    file = io.BytesIO()
    if file_format == "png":
        chunks = PngImagePlugin.PngInfo()
        for key, value in (text or {}).items():
            chunks.add_text(key, value)
        picture.save(file, "PNG", pnginfo=chunks, compress_level=4)
    else:
        picture.save(file, file_format.upper(), quality=quality)
    return file.getvalue()


def _require_size(size: tuple[int, int], max_pixels: int, max_side: int) -> None:
    width, height = size
    if max(width, height) > max_side:
        raise BadInput(f"the picture is {width}x{height}, over the limit of {max_side} pixels a side: make it smaller")
    if width * height > max_pixels:
        raise BadInput(
            f"the picture is {width}x{height} = {width * height:,} pixels, over the limit of {max_pixels:,}: "
            "make it smaller"
        )


def _header_size(data: bytes) -> tuple[int, int]:
    """(width, height) from the header alone. Raises BadInput for what is no PNG, JPEG or WebP."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") or data.startswith(b"\xff\xd8\xff"):
        name = "PNG" if data.startswith(b"\x89") else "JPEG"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # our own limit speaks for large pictures
                with Image.open(io.BytesIO(data), formats=[name]) as image:
                    return image.size
        except Image.DecompressionBombError:
            raise BadInput(f"the {name} has more pixels than any picture may have: make it smaller") from None
        except Exception as error:
            raise BadInput(f"the {name} is damaged: its header cannot be read") from error
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_size(data)
    raise BadInput("the file is no picture of a format that is taken: send PNG, JPEG or WebP")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Read here, as Pillow's decoder allocates the whole canvas to learn it. https://developers.google.com/speed/webp"""
    kind, body = data[12:16], data[20:30]
    if len(body) == 10 and kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if len(body) == 10 and kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return tuple(int.from_bytes(body[i : i + 2], "little") & 0x3FFF for i in (6, 8))  # type: ignore[return-value]
    if len(body) == 10 and kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise BadInput("the WEBP is damaged: its header cannot be read")
