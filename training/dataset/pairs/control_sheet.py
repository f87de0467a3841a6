"""One picture that shows every control of attention, and what each changes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .generator import Drawing, PairGenerator
from .samples import Sample
from .text_control import Control

_SCENE = "two {colour} cats on the left, in a meadow, {time}, in clear weather, {style}"
_BEFORE = _SCENE.format(colour="red", time="by day", style="a flat illustration")
_BLUE = _SCENE.format(colour="blue", time="by day", style="a flat illustration")
_EVENING = _SCENE.format(colour="red", time="in the evening light", style="a flat illustration")
_NIGHT = _SCENE.format(colour="red", time="at night", style="a flat illustration")
_SIDE, _GAP, _TOP = 128, 12, 32
_MAGNIFIED = 20


@dataclass(frozen=True)
class _Row:
    """A control, the caption of the edited picture, and settings with a word on each."""

    title: str
    after: str
    columns: tuple[tuple[str, Drawing], ...]


def draw_controls(generator: PairGenerator, cfg: float, seed: int = 0) -> Image.Image:
    """Rows of a picture before and pictures after from the same noise, each under another setting of one control.

    Below each but the first lies what its setting changes against the first: the difference, `_MAGNIFIED` times.
    """
    rows = _rows(Drawing(steps=generator.steps, self_steps=(0.0, 0.0)))
    columns, height = 1 + max(len(row.columns) for row in rows), _TOP + 2 * _SIDE + _GAP
    sheet = Image.new("RGB", (_GAP + columns * (_SIDE + _GAP), len(rows) * height + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)

    def put(column: int, y: int, label: str, picture: np.ndarray) -> None:
        x = _GAP + column * (_SIDE + _GAP)
        pen.text((x, y - 15), label, "dimgrey", font)
        sheet.paste(Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (x, y))

    for number, row in enumerate(rows):
        y = _GAP + number * height + _TOP
        pen.text((_GAP, y - _TOP), f"{row.title}; below: difference to the first, times {_MAGNIFIED}", "black", font)
        first: np.ndarray | None = None
        for place, (label, drawing) in enumerate(row.columns):
            jobs = [(0, (_BEFORE, row.after), Sample(seed, 0.0, cfg))]
            ((_, (before, after)),) = generator.with_drawing(drawing).generate(jobs)
            put(place + 1, y, label, after)
            if first is None:
                first = after
                put(0, y, "before", before)
                continue
            difference = np.abs(after.astype(int) - first) * _MAGNIFIED
            put(place + 1, y + _SIDE, "", np.minimum(difference, 255).astype(np.uint8))
    return sheet


def _rows(plain: Drawing) -> tuple[_Row, ...]:
    def controlled(**settings: object) -> Drawing:
        return replace(plain, control=Control(**settings))  # type: ignore[arg-type]  # as its fields are named

    shared = replace(plain, self_steps=(0.0, 0.6))
    return (
        _Row(
            "self_replace_steps: red cats to blue ones",
            _BLUE,
            tuple((f"to {end:g}", replace(plain, self_steps=(0.0, end))) for end in (0.0, 0.3, 0.6, 0.9)),
        ),
        _Row(
            "replace: red cats to blue ones, cross_replace_steps",
            _BLUE,
            tuple((f"to {end:g}", controlled(kind="replace", steps=(0.0, end))) for end in (0.0, 0.3, 0.6, 0.9)),
        ),
        _Row(
            "replace, but the word blue for other steps",
            _BLUE,
            tuple(
                (f"blue to {end:g}", controlled(kind="replace", steps=(0.0, 0.9), word_steps={"blue": (0.0, end)}))
                for end in (0.0, 0.3, 0.6, 0.9)
            ),
        ),
        _Row(
            "refine: by day to in the evening light",
            _EVENING,
            tuple((f"to {end:g}", controlled(kind="refine", steps=(0.0, end))) for end in (0.0, 0.3, 0.6, 0.9)),
        ),
        _Row(
            "reweight: attention to night",
            _NIGHT,
            tuple(
                (f"times {by:g}", controlled(weights={"night": by}, steps=(0.0, 1.0))) for by in (1.0, 0.0, 10.0, -10.0)
            ),
        ),
        _Row(
            "local blend: only cats may differ",
            _BLUE,
            (
                ("without", shared),
                *(
                    (f"over {share:g}", replace(shared, control=Control(blend=("cats",), threshold=share)))
                    for share in (0.9, 0.96, 0.99)
                ),
            ),
        ),
    )
