"""Both guidance scales at once (figure 4): the pictures of one edit, and the similarities of many, in each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ip2p_fast import Editor
from ip2p_fast.benchmarks.results import Row

from .cases import Cases
from .curve import Curve, Point, curve_rows
from .scoring import CaseScorer
from .sweep import Advance, edit_cases, from_count, model_name, settings_of
from .tiles import pack_tiles


@dataclass(frozen=True)
class Grid:
    """curves: over s_T, one a value of s_I. pictures: [H, W, 3] uint8 of one case, a row of them a value of s_T."""

    curves: tuple[Curve, ...]
    pictures: tuple[np.ndarray, ...]
    source: np.ndarray
    instruction: str


def measure_grid(
    editor: Editor,
    cases: Cases,
    scorer: CaseScorer,
    text_scales: Sequence[float],
    image_scales: Sequence[float],
    settings: Mapping[str, Any],
    shown: int,
    advance: Advance = lambda done: None,
) -> Grid:
    """Edits all cases in every cell. shown: the case whose pictures are kept."""
    pictures: dict[tuple[float, float], np.ndarray] = {}
    curves = []
    done = 0
    for image_scale in image_scales:
        points = []
        for text_scale in text_scales:
            scales = {"text_guidance": text_scale, "image_guidance": image_scale}
            edited = edit_cases(editor, cases, {**settings, **scales}, from_count(advance, done))
            done += len(cases)
            pictures[text_scale, image_scale] = edited[shown]
            points.append(Point(text_scale, scorer.score(edited)))
        fixed = settings_of(editor, {**settings, "image_guidance": image_scale})
        del fixed["text_guidance"]
        curves.append(Curve(f"s_I {image_scale:g}", "s_T", tuple(points), {"model": model_name(editor), **fixed}))
    by_row = tuple(pictures[down, across] for down in text_scales for across in image_scales)
    case = cases.cases[shown]
    return Grid(tuple(curves), by_row, case.source, case.instruction)


def grid_rows(found: Grid) -> list[Row]:
    """The curves' rows, and one with the pictures, the source first in each line."""
    text_scales = [point.at for point in found.curves[0].points]
    columns = len(found.curves)
    lines = [[found.source, *found.pictures[i * columns : (i + 1) * columns]] for i in range(len(text_scales))]
    detail = {
        "what": f"pictures of {found.instruction!r} over both scales",
        "across": ["input", *(curve.name for curve in found.curves)],
        "down": [f"s_T {scale:g}" for scale in text_scales],
        "tiles": pack_tiles([picture for line in lines for picture in line]),
    }
    shown = Row("grid.pictures", len(found.pictures), "pictures", "higher", None, detail)
    return [*curve_rows("grid", found.curves), shown]
