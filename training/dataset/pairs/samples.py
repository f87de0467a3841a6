"""What is drawn for each sample of a caption pair: its noise, how long attention is shared, how strong guidance is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ip2p_fast.errors import BadInput


@dataclass(frozen=True)
class Draws:
    """The ranges, each of them uniform (InstructPix2Pix, section 3.1.2 and its released code).

    count: samples of a caption pair. p: share of the steps with the source's self-attention. cfg: guidance scale.
    """

    count: int = 100
    p: tuple[float, float] = (0.1, 0.9)
    cfg: tuple[float, float] = (7.5, 15.0)

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 100_000:
            raise BadInput(f"{self.count} samples of a caption pair: 1 to 100000 are needed")
        if not 0 <= self.p[0] <= self.p[1] <= 1:
            raise BadInput(f"p from {self.p[0]:g} to {self.p[1]:g}: two numbers from 0 to 1, the smaller first")
        if not 0 <= self.cfg[0] <= self.cfg[1] <= 1000:
            raise BadInput(
                f"cfg from {self.cfg[0]:g} to {self.cfg[1]:g}: two numbers from 0 to 1000, the smaller first"
            )


@dataclass(frozen=True)
class Sample:
    """One draw. seed: of the noise of both pictures, in 0 .. 2**32 - 1."""

    seed: int
    p: float
    cfg: float


def draw_samples(captions: tuple[str, str], draws: Draws, seed: int) -> list[Sample]:
    """The samples of a caption pair. They depend on its texts and the seed, not on where it stands."""
    texts = hashlib.sha256("\0".join(captions).encode()).digest()
    rng = np.random.default_rng([seed, *np.frombuffer(texts, np.uint32)])
    seeds: dict[int, None] = {}
    while len(seeds) < draws.count:
        seeds[int(rng.integers(2**32))] = None
    return [sample_of(seed, draws) for seed in seeds]


def sample_of(seed: int, draws: Draws) -> Sample:
    """The sample of a seed: p and cfg follow from it."""
    rng = np.random.default_rng(seed)
    return Sample(seed, float(rng.uniform(*draws.p)), float(rng.uniform(*draws.cfg)))
