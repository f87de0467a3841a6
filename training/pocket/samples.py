"""The sample pictures that ship with the package, each with an instruction to try on it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from .language import caption, instruction
from .render import render
from .scene import NONE, NOTHING, Edit, Scene

_SIDE = 64
# From the half of the seeds whose layouts no model is trained on (`split`).
_FIRST_SEED = (1 << 30) + 7

_CAT = Scene("meadow", "day", "clear", "cat", "blue", 1, "left", "render")
_BOAT = Scene("beach", "day", "clear", "boat", "red", 1, "left", "render")
_BALLOONS = Scene("city", "sunset", "clear", "balloon", "blue", 3, "left", "render")
_CAR = Scene("desert", "day", "clear", "car", "white", 1, "middle", "render")
_HOUSE = Scene("mountains", "sunset", "clear", "house", "green", 1, "right", "render")
_VIEW = Scene("mountains", "day", "rain", NOTHING, NONE, 0, NONE, "render")

SAMPLES: dict[str, tuple[Scene, Edit]] = {
    "meadow_cat": (_CAT, Edit("time", replace(_CAT, time="night"))),
    "beach_boat": (_BOAT, Edit("position", replace(_BOAT, position="right"))),
    "city_balloons": (_BALLOONS, Edit("style", replace(_BALLOONS, style="watercolour"))),
    "desert_car": (_CAR, Edit("colour", replace(_CAR, colour="red"))),
    "mountain_house": (_HOUSE, Edit("weather", replace(_HOUSE, weather="snow"))),
    "rainy_mountains": (
        _VIEW,
        Edit("add", replace(_VIEW, subject="tree", colour="yellow", count=1, position="middle")),
    ),
}
"""Name -> a scene and the edit that is suggested for it."""


def write_samples(folder: Path) -> list[Path]:
    """Writes NAME.png of each sample and samples.json, which tells what they show; returns the pictures' paths.

    samples.json is a list of {"file", "scene", "seed", "caption", "kind", "instruction"}, in the order of `SAMPLES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries, paths = [], []
    for seed, (name, (scene, edit)) in enumerate(SAMPLES.items(), start=_FIRST_SEED):
        path = folder / f"{name}.png"
        render(scene, seed, _SIDE).save(path, optimize=True)
        paths.append(path)
        entries.append(
            {
                "file": path.name,
                "scene": asdict(scene),
                "seed": seed,
                "caption": caption(scene),
                "kind": edit.kind,
                "instruction": instruction(scene, edit),
            }
        )
    (folder / "samples.json").write_text(json.dumps(entries, indent=2) + "\n")
    return paths
