"""Before and after pictures on disk: rendered once, in shards, and read back as arrays."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ip2p_fast.errors import BadInput

from .render import render
from .scene import ATTRIBUTES, Edit, Scene, scene_from_labels
from .split import KINDS, draw_pair

_SHARD = 1024


@dataclass(frozen=True)
class Pairs:
    """N pairs of one split.

    pixels: uint8 [N, 2, S, S, 3], before and after. labels: uint8 [N, 2, 8], class indices in the order of
    `ATTRIBUTES`. kinds: uint8 [N], indices into `KINDS`.
    """

    pixels: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)

    def pictures(self) -> np.ndarray:
        """All pictures, before and after in turn: uint8 [2 N, S, S, 3], a view."""
        return self.pixels.reshape(-1, *self.pixels.shape[2:])

    def scene(self, index: int, after: bool = False) -> Scene:
        """The scene of one picture."""
        return scene_from_labels(dict(zip(ATTRIBUTES, map(int, self.labels[index, int(after)]), strict=True)))

    def edit(self, index: int, backwards: bool = False) -> tuple[Scene, Edit]:
        """A pair read as (scene, edit), or backwards: every edit undone is an edit too, and add undone is remove."""
        kind = KINDS[self.kinds[index]]
        if not backwards:
            return self.scene(index), Edit(kind, self.scene(index, after=True))
        kind = {"add": "remove", "remove": "add"}.get(kind, kind)
        return self.scene(index, after=True), Edit(kind, self.scene(index))


def render_pairs(
    folder: Path, split: str, pixels: int, count: int, advance: Callable[[int], None] = lambda pairs: None
) -> None:
    """Renders the first `count` pairs of a split into shards; shards that are already there are kept.

    Args:
        folder: made when absent.
        pixels: side of a picture.
        advance: told of every batch of pairs as it is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    todo = []
    for first in range(0, count, _SHARD):
        if _shard(folder, split, pixels, first).exists():
            advance(_SHARD)
        else:
            todo.append(first)
    work = partial(_render_shard, folder, split, pixels)
    if len(todo) < 2:
        for first in todo:
            advance(work(first))
        return
    # fork would copy a parent that may already run torch threads
    with multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, len(todo))) as pool:
        for done in pool.imap_unordered(work, todo):
            advance(done)


def load_pairs(folder: Path, split: str, pixels: int, count: int) -> Pairs:
    """The first `count` pairs that `render_pairs` wrote, in memory.

    Raises:
        BadInput: some are not there.
    """
    shards = []
    for first in range(0, count, _SHARD):
        path = _shard(folder, split, pixels, first)
        if not path.exists():
            raise BadInput(f"{path} is missing: render the pairs first with `ip2p-fast train pocket data`")
        shards.append(np.load(path))
    parts = {name: np.concatenate([shard[name] for shard in shards])[:count] for name in ("pixels", "labels", "kinds")}
    return Pairs(**parts)


def draw_pairs(split: str, count: int, pixels: int) -> Pairs:
    """The first `count` pairs of a split, rendered now; the same as `load_pairs` reads."""
    return _render(split, range(count), pixels)


def _shard(folder: Path, split: str, pixels: int, first: int) -> Path:
    return folder / f"{split}-{pixels}-{first:07d}.npz"


def _render(split: str, indices: range, pixels: int) -> Pairs:
    pairs = [draw_pair(split, index) for index in indices]
    scenes = [(pair.scene, pair.edit.scene) for pair in pairs]
    pictures = [
        [np.asarray(render(scene, pair.seed, pixels)) for scene in both]
        for pair, both in zip(pairs, scenes, strict=True)
    ]
    labels = [[list(scene.labels().values()) for scene in both] for both in scenes]
    kinds = [KINDS.index(pair.edit.kind) for pair in pairs]
    return Pairs(np.array(pictures, np.uint8), np.array(labels, np.uint8), np.array(kinds, np.uint8))


def _render_shard(folder: Path, split: str, pixels: int, first: int) -> int:
    pairs = _render(split, range(first, first + _SHARD), pixels)
    path = _shard(folder, split, pixels, first)
    partial_path = path.with_suffix(".partial.npz")
    np.savez(partial_path, pixels=pairs.pixels, labels=pairs.labels, kinds=pairs.kinds)
    partial_path.replace(path)
    return _SHARD
