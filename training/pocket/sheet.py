"""A sheet of edits for people to look at: before, instruction, after."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ip2p_fast import Editor
from ip2p_fast.errors import BadInput

from .data import Pairs, draw_pairs
from .evaluate import asked, edit_pairs
from .reader import load_reader
from .split import KINDS

EDITS = 24
_COLUMNS = 4
_SIDE = 144
_GAP = 24
_TEXT = 46
_PAPER, _INK, _PALE = "#ffffff", "#1f2430", "#8b92a1"
_SEARCHED = 512


def draw_sheet(editor: Editor) -> Image.Image:
    """24 edits, two or three of each kind: the first held-out scenes that ask for it, whatever comes out.

    Raises:
        BadInput: the model is no pocket model.
    """
    pixels = load_reader(Path(editor.model_path) / "reader").pixels
    pairs = draw_pairs("held-out", _SEARCHED, pixels)
    chosen = first_of_each_kind(pairs.kinds, EDITS)
    edited = edit_pairs(editor, pairs, chosen)
    return _compose(pairs, chosen, edited)


def first_of_each_kind(kinds: np.ndarray, count: int) -> list[int]:
    """Indices of `count` pairs, kind after kind: of every kind the first ones, as evenly as `count` allows.

    Raises:
        BadInput: there are not enough pairs of some kind.
    """
    chosen: list[int] = []
    for index, kind in enumerate(KINDS):
        quota = count // len(KINDS) + (index < count % len(KINDS))
        found = np.flatnonzero(kinds == index)[:quota]
        if len(found) < quota:
            raise BadInput(f"{len(found)} of {quota} edits of kind {kind} among {len(kinds)} pairs: draw more pairs")
        chosen += map(int, found)
    return chosen


def _compose(pairs: Pairs, chosen: list[int], edited: list[Image.Image]) -> Image.Image:
    rows = -(-len(chosen) // _COLUMNS)
    cell = (2 * _SIDE + _GAP, _SIDE + _TEXT)
    sheet = Image.new("RGB", (_COLUMNS * (cell[0] + _GAP) + _GAP, rows * (cell[1] + _GAP // 2) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    small, plain = ImageFont.load_default(11), ImageFont.load_default(14)
    for place, (index, after) in enumerate(zip(chosen, edited, strict=True)):
        x = _GAP + place % _COLUMNS * (cell[0] + _GAP)
        y = _GAP // 2 + place // _COLUMNS * (cell[1] + _GAP // 2)
        for offset, picture in ((0, Image.fromarray(pairs.pixels[index, 0])), (_SIDE + _GAP, after)):
            sheet.paste(picture.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), (x + offset, y))
        middle, height = x + _SIDE + _GAP // 2, y + _SIDE // 2
        draw.line([(middle - 6, height), (middle + 5, height)], fill=_PALE, width=2)
        draw.polygon([(middle + 7, height), (middle + 1, height - 5), (middle + 1, height + 5)], fill=_PALE)
        draw.text((x, y + _SIDE + 3), KINDS[pairs.kinds[index]], fill=_PALE, font=small)
        text = textwrap.shorten(asked(pairs, index), 44, placeholder=" ...")
        draw.text((x, y + _SIDE + 17), f'"{text}"', fill=_INK, font=plain)
    return sheet
