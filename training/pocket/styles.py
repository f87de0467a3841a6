"""The styles: a finished drawing as watercolour, pencil sketch or pixel art.

Each works on the drawing at its final size and with smooth textures only: what is finer than a pixel of the VAE's
latents is lost on a model of this size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

_PAPER = np.array([252.0, 249.0, 240.0], dtype=np.float32)
# A pencil has no black: darks are drawn lighter and further apart, or a night would be one grey.
_LIGHTER_DARKS = 3 * [round(255 * (level / 255) ** 0.62) for level in range(256)]
_CRISP = ImageFilter.Kernel((3, 3), (0, -1, 0, -1, 9, -1, 0, -1, 0))
_GRAPHITE = np.array([62.0, 60.0, 70.0], dtype=np.float32)


def stylize(canvas: Image.Image, style: str, size: int, rng: np.random.Generator) -> Image.Image:
    """A drawing on a supersampled canvas in a style of `scene.ATTRIBUTES`, at `size` pixels a side."""
    if style == "pencil sketch":
        return _pencil(canvas, size, rng)
    picture = canvas.reduce(canvas.width // size)
    if style == "render":
        return picture
    return _pixel_art(picture) if style == "pixel art" else _watercolour(picture, rng)


def pixel_block(size: int) -> int:
    """Side in pixels of a block of pixel art in a picture of `size`: two at 64, and about 44 blocks a side above."""
    return max(2, round(size / 44))


def _pixel_art(picture: Image.Image) -> Image.Image:
    size, block = picture.width, pixel_block(picture.width)
    cells = -(-size // block)
    padded = picture.crop((0, 0, cells * block, cells * block)) if cells * block != size else picture
    if padded is not picture:  # The part cells at the edge take the colour of what there is of them.
        padded.paste(picture.crop((size - 1, 0, size, size)).resize((cells * block - size, size)), (size, 0))
        padded.paste(
            padded.crop((0, size - 1, cells * block, size)).resize((cells * block, cells * block - size)), (0, size)
        )
    # Sharper than the mean of a block: outlines of small subjects stay lines.
    small = np.asarray(padded.reduce(block).filter(_CRISP), dtype=np.float32)
    # Ten levels a channel: few enough to see, enough to keep every colour apart at night.
    few = (np.round(small / 28.333) * 28.333).astype(np.uint8)
    return Image.fromarray(few).resize(padded.size, Image.Resampling.NEAREST).crop((0, 0, size, size))


def _watercolour(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    size = picture.width
    # Wet edges are as wide in a small picture as in a large one, or the large one would be out of focus.
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(min(size / 190, 1.0))), dtype=np.float32)
    wide = np.asarray(picture.filter(ImageFilter.GaussianBlur(size / 28)), dtype=np.float32)
    # Pigment gathers where a wash ends: darker against the surroundings by more than it was.
    washed = soft + 0.35 * np.minimum(soft - wide, 0.0)
    density = 0.74 + 0.16 * _blotches(rng, size)
    cover = (density * _deckle(rng, size))[..., None]
    return _image(_PAPER + (washed - _PAPER) * cover)


def _pencil(canvas: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    # At twice the size, for lines finer than a pixel.
    drawn = canvas.reduce(canvas.width // (2 * size))
    colour = np.asarray(drawn.point(_LIGHTER_DARKS), dtype=np.float32)
    rich = (_largest(colour) + _largest(-colour)) / 255.0
    hatch = _hatching(2 * size, float(rng.uniform(0.0, 1.0)))
    # Rich colours are pressed harder: they stay what they are among pale ones.
    pressed = (0.58 + 0.28 * rich + 0.14 * hatch)[..., None]
    shaded = _PAPER + (colour - _PAPER) * pressed
    line = _edges(colour)[..., None]
    return _image(shaded + (_GRAPHITE - shaded) * line).reduce(2)


def _edges(colour: np.ndarray) -> np.ndarray:
    """How much graphite an outline leaves at each pixel: [H, W] in [0, 0.7]."""
    down = _largest(np.abs(np.diff(colour, axis=0, append=colour[-1:])))
    across = _largest(np.abs(np.diff(colour, axis=1, append=colour[:, -1:])))
    return np.clip((np.maximum(down, across) - 12.0) / 90.0, 0.0, 0.7)


def _largest(channels: np.ndarray) -> np.ndarray:
    # Many times the speed of max() over an axis of three.
    return np.maximum(np.maximum(channels[..., 0], channels[..., 1]), channels[..., 2])


def _hatching(size: int, phase: float) -> np.ndarray:
    """Diagonal strokes of a coloured pencil, 13 across the picture: [size, size] in [0, 1]."""
    diagonal = _grid(size)[0] + _grid(size)[1]
    return 0.5 + 0.5 * np.sin(2 * np.pi * (13.0 * diagonal + phase), dtype=np.float32)


def _blotches(rng: np.random.Generator, size: int) -> np.ndarray:
    """A slow, smooth unevenness: [size, size] in [-1, 1]."""
    x, y = _grid(size)
    fx, fy, phase = rng.uniform(1.0, 2.2, 3), rng.uniform(1.0, 2.2, 3), rng.uniform(0, 2 * np.pi, 6)
    waves = [np.sin(2 * np.pi * fx[i] * x + phase[i]) * np.sin(2 * np.pi * fy[i] * y + phase[i + 3]) for i in range(3)]
    return (sum(waves) / 2.0).clip(-1.0, 1.0).astype(np.float32)


def _deckle(rng: np.random.Generator, size: int) -> np.ndarray:
    """The painted part of the sheet: 1 inside, falling to 0 at a wavy border: [size, size]."""
    x, y = _grid(size)
    phase = rng.uniform(0, 2 * np.pi, 4)
    left = x - 0.012 * np.sin(2 * np.pi * 3 * y + phase[0])
    right = 1 - x - 0.012 * np.sin(2 * np.pi * 3 * y + phase[1])
    top = y - 0.012 * np.sin(2 * np.pi * 3 * x + phase[2])
    foot = 1 - y - 0.012 * np.sin(2 * np.pi * 3 * x + phase[3])
    inside = np.minimum(np.minimum(left, right), np.minimum(top, foot))
    return np.clip((inside - 0.028) / 0.03, 0.0, 1.0).astype(np.float32)


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x [1, size] and y [size, 1] of the pixels' centres, as shares of the picture."""
    at = (np.arange(size, dtype=np.float32) + 0.5) / size
    return at[None, :], at[:, None]


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values + 0.5, 0.0, 255.0).astype(np.uint8))
