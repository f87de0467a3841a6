"""Does an edit do what was asked, and nothing else? Every edit of this world has a ground truth and a reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ip2p_fast import Editor, EditRequest
from ip2p_fast.errors import BadInput

from .data import Pairs, draw_pairs
from .language import instruction
from .reader import Reader, load_reader, read
from .scene import ATTRIBUTES
from .split import KINDS
from .vae import psnr

BATCH = 32

# What an edit of a kind asks for, and what else it cannot leave alone: colour and place come and go with the subject.
_ASKED = {**{name: (name,) for name in ATTRIBUTES}, "add": ("subject", "count"), "remove": ("subject", "count")}
_IMPLIED = {"add": ("colour", "position"), "remove": ("colour", "position")}


@dataclass(frozen=True)
class Report:
    """Shares in [0, 1] over `edits` edits, and the mean PSNR in dB to the ground-truth picture; the same by kind.

    target_success: the attribute that was asked for reads its new value. preservation: every other attribute that the
    edit does not imply reads as in the input. both: one and the other in the same edit.
    """

    target_success: float
    preservation: float
    both: float
    psnr_db: float
    edits: int
    by_kind: dict[str, dict[str, float]]

    def as_json(self) -> dict[str, Any]:
        """The object that `ip2p-fast evaluate pocket --json` prints."""
        return dict(vars(self))


@dataclass(frozen=True)
class Verdicts:
    """What the reader says of N edits.

    values: uint8 [N, 8], class indices in the order of `ATTRIBUTES`. success: bool [N], the attribute that was asked
    for reads its new value. changed: bool [N, 8], what reads otherwise than in the input though the edit neither asks
    for it nor implies it.
    """

    values: np.ndarray
    success: np.ndarray
    changed: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """bool [N]: nothing changed that should not."""
        return np.logical_not(self.changed.any(1))


def evaluate(
    editor: Editor,
    limit: int,
    settings: Mapping[str, Any] | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Report:
    """Edits the first `limit` held-out scenes, one edit each, and has the model's own reader judge the results.

    Args:
        settings: fields of EditRequest that take the place of the model's defaults; None values are left out.
        advance: told the number of edits done.

    Raises:
        BadInput: the model is no pocket model with a reader in its folder.
    """
    reader = load_reader(Path(editor.model_path) / "reader")
    pairs = draw_pairs("held-out", limit, reader.pixels)
    edited = edit_pairs(editor, pairs, range(limit), settings, advance)
    return judge(reader, pairs, np.stack([np.asarray(picture) for picture in edited]))


def edit_pairs(
    editor: Editor,
    pairs: Pairs,
    indices: range | list[int],
    settings: Mapping[str, Any] | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Image.Image]:
    """The edited pictures of some held-out pairs. Phrasing and noise depend on the pair's index alone."""
    chosen = {name: value for name, value in (settings or {}).items() if value is not None}
    edited: list[Image.Image] = []
    for first in range(0, len(indices), BATCH):
        requests = [
            EditRequest(image=Image.fromarray(pairs.pixels[i, 0]), instruction=asked(pairs, i), seed=i, **chosen)
            for i in indices[first : first + BATCH]
        ]
        edited += [result.images[0] for result in editor.edit_many(requests)]
        advance(len(edited))
    return edited


def asked(pairs: Pairs, index: int) -> str:
    """The instruction of a held-out pair, in one of its phrasings."""
    return instruction(*pairs.edit(index), np.random.default_rng([index, len(KINDS)]))


def judge(reader: Reader, pairs: Pairs, edited: np.ndarray) -> Report:
    """Scores edited pictures, uint8 [N, S, S, 3], against the pairs they were asked for.

    Raises:
        BadInput: the pictures are of another number or size than the pairs.
    """
    found = verdicts(reader, pairs, edited)
    success, kept, truth = found.success, found.kept, pairs.pixels[:, 1]
    likeness = psnr(truth, edited)

    def summary(rows: np.ndarray) -> dict[str, float]:
        return {
            "target_success": float(success[rows].mean()),
            "preservation": float(kept[rows].mean()),
            "both": float((success & kept)[rows].mean()),
            "psnr_db": float(likeness[rows].mean()),
        }

    of_kind = {kind: pairs.kinds == index for index, kind in enumerate(KINDS)}
    by_kind = {kind: {**summary(rows), "edits": int(rows.sum())} for kind, rows in of_kind.items() if rows.any()}
    return Report(**summary(np.ones(len(pairs), bool)), edits=len(pairs), by_kind=by_kind)


def verdicts(reader: Reader, pairs: Pairs, edited: np.ndarray) -> Verdicts:
    """Reads edited pictures, uint8 [N, S, S, 3]: edit by edit what `judge` sums up.

    Raises:
        BadInput: the pictures are of another number or size than the pairs.
    """
    if edited.shape != pairs.pixels[:, 1].shape:
        raise BadInput(f"edited pictures are {edited.shape}, the pairs ask for {pairs.pixels[:, 1].shape}")
    values = read(reader, edited)
    asked_for = _named(_ASKED, pairs.kinds)
    spared = spared_attributes(pairs.kinds)
    success = ((values == pairs.labels[:, 1]) | ~asked_for).all(1)
    return Verdicts(values, success, (values != pairs.labels[:, 0]) & spared)


def spared_attributes(kinds: np.ndarray) -> np.ndarray:
    """Which attributes edits of these kinds (indices into `KINDS`, [N]) must leave as they are: bool [N, 8]."""
    return ~(_named(_ASKED, kinds) | _named(_IMPLIED, kinds))


def _named(table: Mapping[str, tuple[str, ...]], kinds: np.ndarray) -> np.ndarray:
    """The attributes that a table names for each kind: bool [N, 8]"""
    return np.array([[name in table.get(kind, ()) for name in ATTRIBUTES] for kind in KINDS])[kinds]
