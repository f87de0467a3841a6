"""Everything random of a sample is a function of the seed and of the sample's place in the stream, and of nothing else.

So it does not matter which process draws it, in what company, or after how many interruptions.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What is drawn; each has a generator of its own."""

    AUGMENTATION = 0
    POSTERIOR = 1
    DIFFUSION = 2
    VALIDATION = 3
    FILES = 4
    BLOCK = 5


def rng_of(seed: int, purpose: Purpose, *place: int) -> np.random.Generator:
    """numpy's generator for this purpose at this place."""
    return np.random.default_rng([seed, int(purpose), *place])


def generator_of(seed: int, purpose: Purpose, *place: int) -> torch.Generator:
    """PyTorch's, on the CPU so that it is the same on every device."""
    # mixed, because the generator keeps only 32 bits of what it is given
    mixed = np.random.SeedSequence([seed, int(purpose), *place]).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]))
