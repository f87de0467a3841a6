"""What edited pictures are worth: CLIP's two similarities, and in the pocket world what its ground truth says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..dataset.pairs.clip_scores import ClipScorer
from ..metrics.preprocessing import square
from ..pocket.evaluate import verdicts
from ..pocket.reader import Reader
from ..pocket.vae import psnr
from .cases import Cases


@dataclass(frozen=True)
class Measure:
    """label: of an axis, and how rows say what was measured."""

    label: str
    unit: str


MEASURES: Mapping[str, Measure] = {
    "direction": Measure("CLIP text-image direction similarity", "cosine"),
    "image": Measure("CLIP image similarity", "cosine"),
    "success": Measure("edits that do as asked", "share"),
    "kept": Measure("edits that keep the rest", "share"),
    "psnr": Measure("PSNR to the ground truth", "dB"),
}
"""Of one edit: cos of the change of pictures and of captions, cos of the two pictures, the reader's 0 or 1, and the
likeness to the render of the wanted scene, which has the layout of the source."""


class CaseScorer:
    """Scores edits of some cases. Sources and captions are embedded once."""

    def __init__(self, clip: ClipScorer, cases: Cases, reader: Reader | None = None) -> None:
        """reader: judges, where the cases are of the pocket world."""
        self._clip, self._cases = clip, cases
        self._reader = reader if cases.pairs is not None else None
        before, after = zip(*cases.captions, strict=True)
        self._asked = clip.embed_texts(after) - clip.embed_texts(before)  # [N, D]
        self._sources = self._embedded([case.source for case in cases.cases])

    def score(self, edited: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Values of MEASURES, float64 [N] each; the ground truth's only with a reader.

        Args:
            edited: [H, W, 3] uint8 for each case, in order.

        Raises:
            BadInput: there is a reader, and the pictures are not of its size.
        """
        pictures = self._embedded(edited)
        found = {
            "direction": F.cosine_similarity(pictures - self._sources, self._asked),
            "image": (pictures * self._sources).sum(-1),
        }
        values = {name: cosines.clamp(-1, 1).double().cpu().numpy() for name, cosines in found.items()}
        if self._reader is not None and self._cases.pairs is not None:
            read = verdicts(self._reader, self._cases.pairs, np.stack(edited))
            values |= {"success": read.success.astype(np.float64), "kept": read.kept.astype(np.float64)}
            values["psnr"] = psnr(self._cases.pairs.pixels[:, 1], np.stack(edited))
        return values

    def _embedded(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Unit vectors, [N, D]"""
        return self._clip.embed_pictures([square(picture, self._clip.side) for picture in pictures])
