"""What generated pairs of the pocket world show, by its reader: a model can learn no better than its pairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ip2p_fast.errors import BadInput
from ip2p_fast.images import load_image

from ..dataset.forms.record import PairRecord
from . import language
from .reader import Reader, read


@dataclass(frozen=True)
class Audit:
    """Shares in [0, 1] of `pairs`, those whose captions are the grammar's.

    as_captioned: every attribute of the picture before reads what its caption says. changed: every attribute in which
    the captions differ reads its new value in the picture after. kept: every other reads there as in the one before.
    """

    as_captioned: float
    changed: float
    kept: float
    pairs: int


def audit(reader: Reader, records: Iterable[PairRecord]) -> Audit:
    """Reads both pictures of each pair and compares them with the scenes that its captions say.

    Raises:
        BadInput: no pair has captions that can be parsed.
    """
    labels, pictures = [], []
    for record in records:
        scenes = [_labels(caption) for caption in (record.caption, record.edited_caption)]
        if None not in scenes:
            labels.append(scenes)
            pictures += [np.asarray(load_image(data)) for data in (record.input_image, record.edited_image)]
    if not labels:
        raise BadInput("no pair has captions of the pocket world's grammar: there is nothing to read them against")
    said = np.array(labels)  # [N, 2, 8]
    seen = read(reader, np.stack(pictures)).reshape(said.shape)
    differs = said[:, 0] != said[:, 1]
    return Audit(
        as_captioned=float((seen[:, 0] == said[:, 0]).all(1).mean()),
        changed=float(((seen[:, 1] == said[:, 1]) | ~differs).all(1).mean()),
        kept=float(((seen[:, 1] == seen[:, 0]) | differs).all(1).mean()),
        pairs=len(said),
    )


def _labels(caption: str | None) -> list[int] | None:
    try:
        return list(language.parse_caption(caption or "").labels().values())
    except BadInput:  # the writer has words of its own
        return None
