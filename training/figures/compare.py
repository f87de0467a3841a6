"""The same edits by three methods, side by side (figure 9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ip2p_fast import Editor
from ip2p_fast.benchmarks.results import Row

from ..pocket.data import Pairs
from ..pocket.sheet import first_of_each_kind
from ..pocket.split import KINDS
from .cases import POCKET_PIXELS, Cases, balanced_pairs, pocket_cases, read_cases
from .curve import Curve, Point, curve_rows
from .scoring import CaseScorer
from .sdedit import SDEdit
from .sweep import Advance, edit_cases, from_count, model_name, redraw_cases, settings_of
from .text2live import DifferentiableClip, Training, text2live
from .tiles import pack_tiles


@dataclass(frozen=True)
class Comparison:
    """curves: of one point each. pictures: by the method's name, of every case in order."""

    cases: Cases
    curves: tuple[Curve, ...]
    pictures: Mapping[str, list[np.ndarray]]


def compared_cases(source: str | None, scenes: int, pixels: int = POCKET_PIXELS) -> Cases:
    """The first held-out pairs of every kind of edit, as evenly as `scenes` allows, or the first pairs of a data set.

    Raises:
        BadInput: as `read_cases`.
    """
    if source is not None:
        return read_cases(source, scenes)
    pairs = balanced_pairs(-(-scenes // len(KINDS)), pixels)
    chosen = first_of_each_kind(pairs.kinds, scenes)
    return pocket_cases(Pairs(pairs.pixels[chosen], pairs.labels[chosen], pairs.kinds[chosen]))


def measure_comparison(
    editor: Editor,
    sdedit: SDEdit,
    clip: DifferentiableClip,
    cases: Cases,
    scorer: CaseScorer,
    strength: float,
    training: Training,
    settings: Mapping[str, Any],
    advance: Advance = lambda done: None,
) -> Comparison:
    """Every case by every method. advance: told the steps of Text2Live's trainings, which take nearly all the time."""
    edited = edit_cases(editor, cases, settings)
    redrawn = redraw_cases(sdedit, cases, strength)
    layered = []
    for seed, case in enumerate(cases.cases):
        captions = case.source_caption, case.target_caption
        so_far = from_count(advance, seed * training.steps)
        layered.append(text2live(clip, case.source, captions, seed, training, so_far))
    of_ours = {"model": model_name(editor), **settings_of(editor, settings)}
    image_scale = of_ours.pop("image_guidance")
    methods = (
        ("InstructPix2Pix", "s_I", image_scale, of_ours, edited),
        ("SDEdit", "strength", strength, {"guidance": sdedit.guidance, "steps": sdedit.steps}, redrawn),
        ("Text2Live", "steps", training.steps, {"clip": clip.name}, layered),
    )
    curves = tuple(
        Curve(name, knob, (Point(at, scorer.score(pictures)),), fixed) for name, knob, at, fixed, pictures in methods
    )
    return Comparison(cases, curves, {name: pictures for name, _, _, _, pictures in methods})


def compare_rows(found: Comparison) -> list[Row]:
    """The methods' means over the scenes, and one row with the pictures; with the ground truth where there is one."""
    columns = {"input": [case.source for case in found.cases.cases], **found.pictures}
    truth = [case.target for case in found.cases.cases if case.target is not None]
    if len(truth) == len(found.cases):
        columns["ground truth"] = truth
    lines = [[pictures[place] for pictures in columns.values()] for place in range(len(found.cases))]
    detail = {
        "what": "pictures of the same edits by every method",
        "across": list(columns),
        "down": [case.instruction for case in found.cases.cases],
        "tiles": pack_tiles([picture for line in lines for picture in line]),
    }
    shown = Row("compare.pictures", len(lines) * len(columns), "pictures", "higher", None, detail)
    return [*curve_rows("compare", found.curves), shown]
