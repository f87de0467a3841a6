"""Edits of the same cases at one setting after another: the points of a curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ip2p_fast import Editor, EditRequest
from ip2p_fast.checkpoints import SHIPPED
from ip2p_fast.editor import DEFAULTS

from .cases import Cases
from .curve import Curve, Point
from .scoring import CaseScorer
from .sdedit import Redrawing, SDEdit

IMAGE_SCALES = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2)
"""The paper's (figure 8)."""
STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
BATCH = 32
_KNOBS = {"image_guidance": "s_I", "text_guidance": "s_T"}

Advance = Callable[[int], None]
"""Told the number of edits done since it was made."""


def sweep_guidance(
    editor: Editor,
    cases: Cases,
    scorer: CaseScorer,
    scales: Sequence[float],
    settings: Mapping[str, Any],
    name: str = "InstructPix2Pix",
    knob: str = "image_guidance",
    advance: Advance = lambda done: None,
) -> Curve:
    """InstructPix2Pix over one of its two scales.

    Args:
        knob: image_guidance or text_guidance.
        settings: other fields of EditRequest; None values are the model's own.
    """
    points = []
    for done, scale in enumerate(scales):
        edited = edit_cases(editor, cases, {**settings, knob: scale}, from_count(advance, done * len(cases)))
        points.append(Point(scale, scorer.score(edited)))
    fixed = {key: value for key, value in settings_of(editor, settings).items() if key != knob}
    return Curve(name, _KNOBS[knob], tuple(points), {"model": model_name(editor), **fixed})


def sweep_strength(
    sdedit: SDEdit,
    cases: Cases,
    scorer: CaseScorer,
    strengths: Sequence[float],
    settings: Mapping[str, Any],
    advance: Advance = lambda done: None,
) -> Curve:
    """SDEdit, given the caption of the wanted picture, over its strength. settings: what a results file says of it."""
    points = []
    for done, strength in enumerate(strengths):
        edited = redraw_cases(sdedit, cases, strength, from_count(advance, done * len(cases)))
        points.append(Point(strength, scorer.score(edited)))
    fixed = {"guidance": sdedit.guidance, "steps": sdedit.steps, **settings}
    return Curve("SDEdit", "strength", tuple(points), fixed)


def edit_cases(
    editor: Editor, cases: Cases, settings: Mapping[str, Any], advance: Advance = lambda done: None
) -> list[np.ndarray]:
    """The edit of every case by instruction, [H, W, 3] uint8."""
    chosen = {name: value for name, value in settings.items() if value is not None}
    edited: list[np.ndarray] = []
    for first in range(0, len(cases), BATCH):
        requests = [
            EditRequest(Image.fromarray(case.source), case.instruction, seed=first + place, **chosen)
            for place, case in enumerate(cases.cases[first : first + BATCH])
        ]
        edited += [np.asarray(result.images[0]) for result in editor.edit_many(requests)]
        advance(len(edited))
    return edited


def redraw_cases(
    sdedit: SDEdit, cases: Cases, strength: float, advance: Advance = lambda done: None
) -> list[np.ndarray]:
    """The edit of every case by SDEdit, [H, W, 3] uint8."""
    jobs = [Redrawing(case.source, case.target_caption, strength, seed) for seed, case in enumerate(cases.cases)]
    return sdedit.redraw(jobs, lambda done: advance(done) if done % BATCH == 0 or done == len(jobs) else None)


def settings_of(editor: Editor, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Both scales, steps and sampler that edits are made with."""
    given = {name: value for name, value in settings.items() if value is not None}
    chosen = {**DEFAULTS, **editor.backend.info.defaults, **given}
    return {name: chosen[name] for name in DEFAULTS}


def model_name(editor: Editor) -> str:
    """As a command takes it: the name of a shipped model, else where it lies."""
    places = {str(path): name for name, path in SHIPPED.items()}
    return places.get(editor.model_path, editor.model_path)


def from_count(advance: Advance, before: int) -> Advance:
    """Tells `advance` what comes after `before` edits that are done."""
    return lambda done: advance(before + done)
