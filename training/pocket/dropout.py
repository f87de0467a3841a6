"""Conditioning dropout: the rows that classifier-free guidance with two conditions needs to have seen."""

from __future__ import annotations

import torch
from torch import Tensor

SHARE = 0.05


def draw_dropout(count: int, rng: torch.Generator, share: float = SHARE) -> tuple[Tensor, Tensor]:
    """Which samples lose their text and which their image: two bool tensors [count].

    One draw r decides both, so the three cases exclude each other: r < s text only, s <= r < 2s both, 2s <= r < 3s
    image only (InstructPix2Pix section 3.2.1 and its reference implementation, s = 5%).
    """
    r = torch.rand(count, generator=rng)
    return r < 2 * share, (share <= r) & (r < 3 * share)
