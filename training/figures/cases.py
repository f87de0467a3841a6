"""What the figures are measured on: held-out pairs of the pocket world, or the captioned pairs of any data set."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from ip2p_fast.errors import BadInput

from ..dataset.forms.formats import read_pairs
from ..metrics.cases import EditCase, distinct_cases, read_picture
from ..pocket.data import Pairs, draw_pairs
from ..pocket.evaluate import asked
from ..pocket.language import caption, edited_caption
from ..pocket.split import KINDS

POCKET_PIXELS = 64


@dataclass(frozen=True)
class Cases:
    """N edits to be made. The noise of case i is that of seed i, whatever makes the edit.

    pairs: of the pocket world, in the same order, where the cases are from it: what its reader judges by.
    """

    cases: tuple[EditCase, ...]
    pairs: Pairs | None = None

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def captions(self) -> list[tuple[str, str]]:
        """Of the source and of the wanted picture."""
        return [(case.source_caption, case.target_caption) for case in self.cases]


def read_cases(source: str | None, limit: int, pixels: int = POCKET_PIXELS) -> Cases:
    """The first `limit` held-out pairs of the pocket world (source None), or captioned pairs of `read_pairs`.

    Raises:
        BadInput: no such data set, or none of its pairs has both captions.
    """
    return pocket_cases(draw_pairs("held-out", limit, pixels)) if source is None else _captioned(source, limit)


def pocket_cases(pairs: Pairs) -> Cases:
    """Pairs of the pocket world, each with the instruction that `evaluate pocket` gives and a phrasing of its own.

    The edited caption keeps the words of the source's that still hold: the change of the two texts is the edit.
    """
    return Cases(tuple(_pocket_case(pairs, index) for index in range(len(pairs))), pairs)


def balanced_pairs(per_kind: int, pixels: int = POCKET_PIXELS) -> Pairs:
    """The first `per_kind` held-out pairs of every kind of edit, kind after kind."""
    count = 2 * per_kind * len(KINDS)
    while True:
        pairs = draw_pairs("held-out", count, pixels)
        places = [np.flatnonzero(pairs.kinds == kind)[:per_kind] for kind in range(len(KINDS))]
        if min(map(len, places)) == per_kind:
            chosen = np.concatenate(places)
            return Pairs(pairs.pixels[chosen], pairs.labels[chosen], pairs.kinds[chosen])
        count *= 2


def _pocket_case(pairs: Pairs, index: int) -> EditCase:
    before = caption(pairs.scene(index), np.random.default_rng(index))
    return EditCase(
        id=f"held-out-{index:07d}",
        source=pairs.pixels[index, 0],
        instruction=asked(pairs, index),
        source_caption=before,
        target_caption=edited_caption(before, pairs.scene(index, after=True)),
        group=KINDS[pairs.kinds[index]],
        target=pairs.pixels[index, 1],
    )


def _captioned(source: str, limit: int) -> Cases:
    cases = (
        EditCase(
            id=record.key,
            source=read_picture(record.input_image),
            instruction=record.instruction,
            source_caption=record.caption,
            target_caption=record.edited_caption,
            group="all",
            target=read_picture(record.edited_image),
        )
        for record in read_pairs(source)
        if record.caption and record.edited_caption and record.instruction.strip()
    )
    found = tuple(itertools.islice(distinct_cases(cases), limit))
    if not found:
        raise BadInput(
            f"{source} has no pair with both captions and an instruction: similarities of a change need them"
        )
    return Cases(found)
