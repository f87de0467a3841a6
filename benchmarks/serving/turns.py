"""Edits of edits: how far a picture drifts from itself when each turn asks for what is there already."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from ip2p_fast.training.pocket.language import instruction
from ip2p_fast.training.pocket.render import render
from ip2p_fast.training.pocket.scene import Edit, random_scene

from ..results import Row
from .served import Served
from .traffic import edit_body

TURNS = 5
_SCENES = 16
_SIZE = 64


def measure(served: Served, model: str) -> list[Row]:
    """PSNR of turn 1 to 5 against the picture that went in, over held-out scenes, at the model's own settings."""
    psnr = np.array([_turns(served, number) for number in range(_SCENES)])  # [scenes, turns]
    detail = {
        "what": f"PSNR after {TURNS} turns that ask {model} for the time of day that the picture has, {_SCENES} scenes",
        "mean_db_by_turn": psnr.mean(0).tolist(),
        "lowest_db_by_turn": psnr.min(0).tolist(),
    }
    return [Row(f"cpu.serving.turns.{model}.psnr", float(psnr[:, -1].mean()), "dB", "higher", None, detail)]


def _turns(served: Served, number: int) -> list[float]:
    scene = random_scene(np.random.default_rng(number))
    first = render(scene, number, _SIZE).convert("RGB")
    asked, picture, psnr = instruction(scene, Edit("time", scene)), first, []
    for turn in range(TURNS):
        reply = served.edit(edit_body(picture, prompt=asked, seed=turn))
        picture = Image.open(io.BytesIO(base64.b64decode(reply["data"][0]["b64_json"]))).convert("RGB")
        error = np.square(np.asarray(picture, np.float64) - np.asarray(first, np.float64)).mean()
        psnr.append(float(10 * np.log10(255**2 / error)) if error else 99.0)
    return psnr
