"""What the torch backend keeps of an edit, and what a step of it reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..samplers import COEFFICIENTS
from ..transformer import KeysValues, SharedMaps
from . import StepPlan
from .reuse import Kept


@dataclass(frozen=True)
class Mask:
    """Where an edit may change the picture, and what it follows where it may not.

    share  [h, w] float32     1 takes the edit, 0 the input
    clean  [C, h, w] float32  the input's latents, scaled
    noise  [C, h, w] float32  the edit's own start noise, unit normal
    """

    share: Tensor
    clean: Tensor
    noise: Tensor

    def blend(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Blended diffusion (Avrahami et al. 2022): outside the mask, the input at the noise level of x."""
        return torch.lerp(alpha * self.clean + sigma * self.noise, x, self.share)


@dataclass
class EditState:
    """One edit in flight; x and history may be views into the batch it last stepped with.

    x              [C, h, w] float32
    history        [2, C, h, w] float32  earlier predictions, latest first
    image_latents  [C, h, w] dtype       the VAE's mode, not scaled; None where the UNet takes no picture
    texts          keys and values of the null text and of the instruction, [1, heads, 77, d] each
    attention      [2, h', w'] or None   what a local blend has seen so far
    kept           what later steps reuse
    """

    x: Tensor
    history: Tensor
    image_latents: Tensor | None
    texts: tuple[list[KeysValues], list[KeysValues]]
    mask: Mask | None
    attention: Tensor | None = None
    kept: Kept = field(default_factory=Kept)


@dataclass(frozen=True)
class RowInputs:
    """What the rows of a plan read besides the latents; the same until edits join, leave or change guidance.

    edit       [R] int64
    start      [E + 1] int64
    images     [R, C, h, w] dtype, zeros where the image is null; None where the UNet takes no picture
    text       keys and values a layer, [R, heads, 77, d]
    shared     whose attention maps the rows use; None where the UNet shares none
    """

    edit: Tensor
    start: Tensor
    images: Tensor | None
    text: list[KeysValues]
    shared: SharedMaps | None


@dataclass(frozen=True)
class StepNumbers:
    """The numbers of one step, sent to the device in one copy; all float32. Noise is first: it alone is long, and so
    begins where wide loads may."""

    noise: Tensor  # [E, C, h, w]
    timesteps: Tensor  # [E]
    coefficients: Tensor  # [E, 7]
    weights: Tensor  # [R]
    scales: Tensor  # [R, 2]
    levels: Tensor  # [E, 2]

    @staticmethod
    def packed(plan: StepPlan) -> np.ndarray:
        """A plan's numbers end to end, [P] float32."""
        rows = plan.rows
        parts = (plan.noise, plan.timesteps, plan.coefficients, rows.weight, rows.scales, plan.levels)
        return np.concatenate([part.ravel() for part in parts])

    @classmethod
    def unpacked(cls, packed: Tensor, rows: int, latents: Sequence[int]) -> StepNumbers:
        """Views of what `packed` made for R rows and latents of shape [E, C, h, w]."""
        edits = latents[0]
        shapes = (tuple(latents), (edits,), (edits, len(COEFFICIENTS)), (rows,), (rows, 2), (edits, 2))
        parts = packed.split([math.prod(shape) for shape in shapes])
        return cls(*(part.view(shape) for part, shape in zip(parts, shapes, strict=True)))


@dataclass(frozen=True)
class UNetInputs:
    """What the UNet is given for R rows, in the order of its arguments; `of` it, for some of them or all.

    latents    [R, C or 2 C, h, w] dtype
    timesteps  [R]
    text       keys and values a layer, [R, heads, 77, d]
    scales     [R, 2]
    """

    latents: Tensor
    timesteps: Tensor
    text: list[KeysValues]
    shared: SharedMaps | None
    scales: Tensor

    def of(self, rows: slice | Tensor | None) -> tuple[Tensor, Tensor, list[KeysValues], SharedMaps | None, Tensor]:
        if rows is None:  # as they are: rows that share maps may have more values than there are rows
            return self.latents, self.timesteps, self.text, self.shared, self.scales
        text = [(k[rows], v[rows]) for k, v in self.text]
        return self.latents[rows], self.timesteps[rows], text, self.shared, self.scales[rows]
