"""How far a bundle is from the model it was made of: what bundle.json says under "parity"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ip2p_fast import Editor
from ip2p_fast.backends import Backend, EditStart, StepPlan
from ip2p_fast.guidance import guidance_rows, plan_rows
from ip2p_fast.images import target_size

INSTRUCTION = "make it night"
STEPS = 4
SEED = 0
LARGEST = 256
"""Pixels along a side: full-size pictures of a large model would take more memory than its export."""
# Of the two guided steps compared: three rows and two, at different noise levels.
_SCALES, _TIMESTEPS = ((7.5, 1.5), (3.0, 1.0)), (800.0, 200.0)
# x' = d = e: a step whose new latents are the guided prediction itself.
_PREDICTION = np.array([0, 1, 0, 0, 0, 0, 1], np.float32)
_GRID = 8  # the test picture is this many random colours along a side, made smooth


@dataclass(frozen=True)
class Observed:
    """What an editor makes of the same picture, texts and noise as every other.

    predictions  [2, C, h, w] float32  guided predictions of two edits in one batch
    picture      [H, W, 3] uint8       of one edit of STEPS steps
    """

    predictions: np.ndarray
    picture: np.ndarray


def observe(editor: Editor) -> Observed:
    """Runs two guided steps and one short edit, at most LARGEST pixels along a side."""
    info = editor.backend.info
    size = min(int(info.defaults["size"]), LARGEST)
    side, _ = target_size(_GRID, _GRID, size, info.size_multiple)
    colours = np.random.default_rng(SEED).integers(0, 256, (_GRID, _GRID, 3), dtype=np.uint8)
    picture = Image.fromarray(colours).resize((side, side), Image.Resampling.BICUBIC)
    edited = editor.edit(picture, INSTRUCTION, steps=STEPS, seed=SEED, size=side).images[0]
    return Observed(_guided_predictions(editor, np.array(picture)), np.asarray(edited))


def compare(ours: Observed, reference: Observed) -> dict[str, Any]:
    """What differs between two editors of one model.

    Returns:
        guided_noise_relative_error  ||ours - reference|| / ||reference|| of the guided predictions of two edits
        edit_largest_difference      the largest grey-level difference between the pictures of one edit
        edit_steps                   of that edit
    """
    difference = np.linalg.norm(ours.predictions - reference.predictions)
    return {
        "guided_noise_relative_error": float(difference / np.linalg.norm(reference.predictions)),
        "edit_largest_difference": int(np.abs(ours.picture.astype(int) - reference.picture).max()),
        "edit_steps": STEPS,
    }


def _guided_predictions(editor: Editor, pixels: np.ndarray) -> np.ndarray:
    """Of two edits in one batch, [2, C, h, w]"""
    backend: Backend = editor.backend
    info = backend.info
    shape = (info.latent_channels, pixels.shape[0] // info.vae_scale, pixels.shape[1] // info.vae_scale)
    noise = np.random.default_rng(SEED).standard_normal((2, *shape), dtype=np.float32)
    tokens = np.stack([editor.tokenizer.encode(text).ids for text in ("", INSTRUCTION)])
    keys: Sequence[int] = range(2)
    backend.start({key: EditStart(pixels, tokens, noise[key], scale=1.0) for key in keys})
    try:
        backend.step(
            StepPlan(
                edits=tuple(keys),
                rows=plan_rows([guidance_rows(*scales, info.distilled) for scales in _SCALES]),
                timesteps=np.array(_TIMESTEPS, np.float32),
                coefficients=np.stack([_PREDICTION, _PREDICTION]),
                noise=np.zeros_like(noise),
                levels=np.ones((2, 2), np.float32),
            )
        )
        return np.stack([backend.latents(key) for key in keys])
    finally:
        backend.drop(keys)
