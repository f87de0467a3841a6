"""Which scenes and layouts are trained on and which are held out: disjoint by construction, not by luck.

Two walls stand between the halves. Scenes: a hash of the eight attributes holds out one scene in sixteen, and a pair
that touches such a scene, before or after, is never trained on. Layouts: training and held-out pictures draw their
seeds from two ranges that do not meet, so even a scene seen in training was never seen with a held-out layout.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from ip2p_fast.errors import BadInput

from .scene import ATTRIBUTES, Edit, Scene, random_edit, random_scene

SPLITS = ("train", "held-out")
KINDS = (*ATTRIBUTES, "add", "remove")
"""Kinds of edit, in the order of their index on disk."""

_ONE_SCENE_IN = 16
_FIRST_HELD_OUT_SEED = 1 << 30


@dataclass(frozen=True)
class Pair:
    """A scene, one edit of it, and the seed of the layout that both pictures share."""

    scene: Scene
    edit: Edit
    seed: int


def draw_pair(split: str, index: int) -> Pair:
    """The pair number `index` of a split; always the same one.

    Raises:
        BadInput: an unknown split, or an index outside 0 .. 2**30 - 1 (where the two ranges of seeds would meet).
    """
    if split not in SPLITS:
        raise BadInput(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
    if not 0 <= index < _FIRST_HELD_OUT_SEED:
        raise BadInput(f"pair {index} is outside 0 .. {_FIRST_HELD_OUT_SEED - 1}")
    held = split == "held-out"
    seed = index + _FIRST_HELD_OUT_SEED * held
    rng = np.random.default_rng([seed, held])
    while True:
        scene = random_scene(rng)
        edit = random_edit(scene, rng)
        allowed = is_held_out(scene) if held else not (is_held_out(scene) or is_held_out(edit.scene))
        if allowed:
            return Pair(scene, edit, seed)


def is_held_out(scene: Scene) -> bool:
    """True for the one scene in sixteen that training never sees."""
    return zlib.crc32(bytes(scene.labels().values())) % _ONE_SCENE_IN == 0
