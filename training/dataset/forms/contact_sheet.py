"""A contact sheet of edited pairs: before, after, the instruction under them, and what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ip2p_fast.errors import BadInput
from ip2p_fast.images import load_image

from .record import PairRecord

COLUMNS = 4
SIDE = 192
"""Of a picture on the sheet; three times 64 and six times 32, so that small pictures keep square pixels."""

_GAP, _MARGIN = 6, 24
_CELL_WIDTH = 2 * SIDE + _GAP
_TEXT_SIZE, _NOTE_SIZE = 17, 13
_LINES = 2
_LINE = 22
_CELL_HEIGHT = SIDE + 8 + _LINES * _LINE + 20
_PAPER, _INK, _PALE, _EMPTY, _ALARM = "#ffffff", "#1f2430", "#6b7280", "#eceef2", "#c62828"


def draw_sheet(records: Sequence[PairRecord], faulty: Sequence[str | None]) -> Image.Image:
    """Rows of four pairs, in order.

    Args:
        faulty: for each record what is wrong with it, written in place of its numbers, or None.

    Raises:
        BadInput: no records.
    """
    if not records:
        raise BadInput("there are no records to draw")
    columns, rows = min(COLUMNS, len(records)), math.ceil(len(records) / COLUMNS)
    sheet = Image.new(
        "RGB",
        (columns * (_CELL_WIDTH + _MARGIN) + _MARGIN, rows * (_CELL_HEIGHT + _MARGIN) + _MARGIN),
        _PAPER,
    )
    for place, (record, fault) in enumerate(zip(records, faulty, strict=True)):
        x = _MARGIN + place % COLUMNS * (_CELL_WIDTH + _MARGIN)
        y = _MARGIN + place // COLUMNS * (_CELL_HEIGHT + _MARGIN)
        _draw_pair(sheet, x, y, record, fault)
    return sheet


def _draw_pair(sheet: Image.Image, x: int, y: int, record: PairRecord, fault: str | None) -> None:
    draw = ImageDraw.Draw(sheet)
    for left, data in ((x, record.input_image), (x + SIDE + _GAP, record.edited_image)):
        draw.rectangle([left, y, left + SIDE - 1, y + SIDE - 1], fill=_EMPTY)
        try:
            picture = _sized(load_image(data))
        except BadInput:
            low, high = 2, SIDE - 3  # a line of two pixels reaches beyond its ends
            draw.line([left + low, y + low, left + high, y + high], fill=_ALARM, width=2)
            draw.line([left + low, y + high, left + high, y + low], fill=_ALARM, width=2)
            continue
        sheet.paste(picture, (left + (SIDE - picture.width) // 2, y + (SIDE - picture.height) // 2))
    plain, small = ImageFont.load_default(_TEXT_SIZE), ImageFont.load_default(_NOTE_SIZE)
    top = y + SIDE + 8
    for line in _wrapped(record.instruction, plain):
        draw.text((x, top), line, fill=_INK, font=plain)
        top += _LINE
    note = _wrapped(fault or _measured(record), small, 1)
    draw.text((x, top + 2), "".join(note), fill=_ALARM if fault else _PALE, font=small)


def _sized(picture: Image.Image) -> Image.Image:
    """At most SIDE on its longer side: smaller by Lanczos, larger by whole pixels."""
    longer = max(picture.size)
    if longer <= SIDE:
        times = SIDE // longer
        return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    size = (max(1, round(picture.width * SIDE / longer)), max(1, round(picture.height * SIDE / longer)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _measured(record: PairRecord) -> str:
    parts = []
    if record.similarities is not None:
        parts += [f"direction {record.similarities.direction:.2f}", f"image {record.similarities.image:.2f}"]
    parts += [f"{name} {value:.3g}" for name, value in (("p", record.p), ("cfg", record.cfg)) if value is not None]
    return ", ".join(parts) or record.key


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, lines: int = _LINES) -> list[str]:
    """The text in lines no wider than a cell; what is left over is replaced by dots."""
    wrapped: list[str] = []
    words = text.split()
    while words and len(wrapped) < lines:
        count = next((n for n in range(len(words), 0, -1) if _fits(" ".join(words[:n]), font)), 1)
        wrapped.append(" ".join(words[:count]))
        words = words[count:]
    if wrapped and (words or not _fits(wrapped[-1], font)):
        last = wrapped[-1]
        while last and not _fits(last + " ...", font):
            last = last[:-1]
        wrapped[-1] = last.rstrip() + " ..."
    return wrapped


def _fits(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> bool:
    return font.getlength(text) <= _CELL_WIDTH
