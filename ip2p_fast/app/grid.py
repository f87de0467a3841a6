"""A grid of edits over both guidance scales, as in the paper's figure 4: its cells, and the sheet of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from ..errors import BadInput
from ..images import fit

MAX_SIDE = 8
"""Columns, and rows, of a grid."""

_CELL = 256  # longer side of a cell in pixels
_GAP = 12
_HEAD = 112  # side of the original in the head
_LEFT, _TOP = 80, 176  # where the first cell begins
_NARROWEST = 620  # what the words of the head need
_INK, _FAINT, _PAPER, _EMPTY = "#1f2933", "#66727f", "#ffffff", "#eef1f4"


@dataclass(frozen=True)
class Grid:
    """Text guidance grows from left to right, image guidance from top to bottom."""

    text: tuple[float, ...]
    image: tuple[float, ...]

    @property
    def cells(self) -> tuple[tuple[float, float], ...]:
        """(text guidance, image guidance) of each cell, row by row."""
        return tuple((text, image) for image in self.image for text in self.text)


def spread(name: str, first: float | None, last: float | None, count: float | None) -> tuple[float, ...]:
    """`count` scales from `first` to `last`, evenly, to two decimals. Raises BadInput for what is no range."""
    if first is None or last is None or count is None:
        raise BadInput(f"{name} has no range: give its first, its last and how many")
    if count != int(count) or not 1 <= count <= MAX_SIDE:
        raise BadInput(f"{name} has {count:g} values: 1 to {MAX_SIDE} can be drawn")
    if count > 1 and not first < last:
        raise BadInput(f"{name} goes from {first:g} to {last:g}: the first must be the smaller")
    steps = int(count)
    return tuple(round(first + (last - first) * i / max(1, steps - 1), 2) for i in range(steps))


def sheet(grid: Grid, original: Image.Image, pictures: Mapping[int, Image.Image], title: str) -> Image.Image:
    """The grid with its scales beside it. Cells whose picture is not there yet are blank.

    Args:
        original: drawn in the head.
        pictures: by the cell's number, row by row; all of the original's aspect.
    """
    width, height = cell_size(original)
    across, down = len(grid.text), len(grid.image)
    full = max(_LEFT + across * (width + _GAP), _NARROWEST), _TOP + down * (height + _GAP)
    page = Image.new("RGB", full, _PAPER)
    draw = ImageDraw.Draw(page)
    page.paste(fit(original, (_HEAD, _HEAD)), (_GAP, _GAP))
    beside = _GAP + _HEAD + 20
    draw.text((beside, 20), _cut(title, full[0] - beside - _GAP, draw, 24), _INK, _font(24))
    draw.text((beside, 62), "across: text guidance, more follows the instruction", _FAINT, _font(17))
    draw.text((beside, 88), "down: image guidance, more keeps the picture", _FAINT, _font(17))
    for column, scale in enumerate(grid.text):
        draw.text((_LEFT + column * (width + _GAP) + width // 2, _TOP - 12), f"{scale:g}", _INK, _font(22), anchor="ms")
    for row, scale in enumerate(grid.image):
        draw.text((_LEFT - 16, _TOP + row * (height + _GAP) + height // 2), f"{scale:g}", _INK, _font(22), anchor="rm")
    for number in range(across * down):
        row, column = divmod(number, across)
        corner = _LEFT + column * (width + _GAP), _TOP + row * (height + _GAP)
        if number in pictures:
            page.paste(fit(pictures[number], (width, height)), corner)
        else:
            draw.rectangle((*corner, corner[0] + width - 1, corner[1] + height - 1), fill=_EMPTY)
    return page


def cell_at(grid: Grid, original: Image.Image, x: int, y: int) -> int | None:
    """The number of the cell at a point of the sheet; None between cells."""
    width, height = cell_size(original)
    column, across = divmod(x - _LEFT, width + _GAP)
    row, down = divmod(y - _TOP, height + _GAP)
    inside = 0 <= column < len(grid.text) and 0 <= row < len(grid.image) and across < width and down < height
    return row * len(grid.text) + column if inside else None


def cell_size(original: Image.Image) -> tuple[int, int]:
    """(width, height) of a cell, of the original's aspect."""
    longer = max(original.size)
    width, height = (max(1, round(side * _CELL / longer)) for side in original.size)
    return width, height


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _cut(text: str, width: int, draw: ImageDraw.ImageDraw, size: int) -> str:
    if draw.textlength(text, _font(size)) <= width:
        return text
    while text and draw.textlength(text + "...", _font(size)) > width:
        text = text[:-1]
    return text + "..."
