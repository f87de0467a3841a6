"""Which samples of a caption pair are kept: thresholds on the four similarities, then the best direction first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ip2p_fast.checkpoints import POCKET
from ip2p_fast.errors import BadInput

from ..forms.record import Similarities


@dataclass(frozen=True)
class Thresholds:
    """The least of each cosine, and how many samples are kept of those that pass (InstructPix2Pix, section 3.1.2).

    text_image: of both pictures and their captions. most: of a caption pair. The numbers are those of CLIP ViT-L/14;
    another CLIP's cosines have other ranges.
    """

    text_image: float = 0.2
    direction: float = 0.2
    image: float = 0.7
    most: int = 4

    def __post_init__(self) -> None:
        for name in ("text_image", "direction", "image"):
            if not -1 <= getattr(self, name) <= 1:
                raise BadInput(f"the threshold {name} is {getattr(self, name)}: a cosine from -1 to 1 is needed")
        if self.most < 1:
            raise BadInput(f"{self.most} samples kept of a caption pair: at least 1 is needed")

    @property
    def by_similarity(self) -> dict[str, float]:
        """The least of each of `Similarities`, by name."""
        return asdict(Similarities(self.text_image, self.text_image, self.direction, self.image))

    def fault(self, similarities: Similarities) -> str | None:
        """The first similarity that is too small, or None."""
        for name, value, least in (
            ("text-image before", similarities.text_image_0, self.text_image),
            ("text-image after", similarities.text_image_1, self.text_image),
            ("direction", similarities.direction, self.direction),
            ("image", similarities.image, self.image),
        ):
            if not value >= least:
                return name
        return None


def select(
    similarities: Sequence[Similarities], thresholds: Thresholds, filtered: bool = True
) -> tuple[list[int], dict[str, int]]:
    """Indices of the samples to keep, best first, and what became of all, by cause.

    filtered: False keeps the first samples, whatever their similarities (the paper's ablation).
    """
    counts: Counter[str] = Counter()
    passed = []
    for index, one in enumerate(similarities):
        fault = thresholds.fault(one) if filtered else None
        if fault is None:
            passed.append(index)
        else:
            counts[f"low {fault}"] += 1
    if filtered:
        # a stable sort: equal ones stay in the order they were drawn in
        passed.sort(key=lambda index: -similarities[index].direction)
    kept = passed[: thresholds.most]
    counts["kept"] += len(kept)
    counts["not among the best"] += len(passed) - len(kept)
    return kept, dict(counts)


def thresholds_of(clip: str) -> Thresholds:
    """The thresholds that suit a CLIP: what `dataset calibrate` wrote into its folder, else the paper's."""
    path = (POCKET / "clip" if clip == "pocket" else Path(clip)) / "thresholds.json"
    if not path.is_file():
        return Thresholds()
    try:
        return Thresholds(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path} holds no thresholds: {error}") from error


def calibrated(true: Sequence[Similarities], unrelated: Sequence[Similarities]) -> Thresholds:
    """Thresholds halfway between what 95% of true pairs exceed and what 95% of unrelated pairs stay below.

    unrelated: of captions and of a picture before that belong to each other, with a picture after of another pair.
    """
    least = np.quantile(_table(true), 0.05, axis=0)
    most = np.quantile(_table(unrelated), 0.95, axis=0)
    _, text_image, direction, image = (round(float(value), 3) for value in (least + most) / 2)
    return Thresholds(text_image, direction, image)


def _table(similarities: Sequence[Similarities]) -> np.ndarray:
    """[N, 4]: text-image before and after, direction, image."""
    return np.array([list(vars(one).values()) for one in similarities])
