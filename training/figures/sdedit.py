"""SDEdit (Meng et al. 2022): a picture is noised to a strength and denoised by a text-to-image model.

As Stable Diffusion's image-to-image does it: in latents, guided by the caption of the wanted picture, by the last
`strength` of a sampler's steps. Edits of any pictures, captions and strengths share one loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ip2p_fast.errors import BadInput
from ip2p_fast.guidance import Row
from ip2p_fast.images import fit, load_image, target_size
from ip2p_fast.loop import LoopEdit, StepLoop
from ip2p_fast.samplers import SamplerTable, sampler_table
from ip2p_fast.tokenizer import Tokenizer

from ..dataset.options import guidance_of
from ..dataset.pairs.samples import Draws
from ..pocket.vae import as_tensor

if TYPE_CHECKING:
    from ip2p_fast.backends.torch_backend import TorchBackend

GUIDANCE = 7.5
"""Stable Diffusion's, for a base that does not say."""


@dataclass(frozen=True)
class Redrawing:
    """One edit by SDEdit.

    picture   [H, W, 3] uint8
    caption   of the wanted picture
    strength  above 0, at most 1: the share of the steps that is run. At 1 nothing is kept of the picture.
    seed      of the noise
    """

    picture: np.ndarray
    caption: str
    strength: float
    seed: int


class SDEdit:
    """Redraws pictures with one text-to-image model."""

    def __init__(
        self,
        backend: TorchBackend,
        tokenizer: Tokenizer,
        guidance: float = GUIDANCE,
        steps: int = 20,
        sampler: str = "euler_a",
        at_once: int = 32,
    ) -> None:
        """
        Args:
            guidance: scale of classifier-free guidance (Ho and Salimans 2022).
            at_once: edits in flight.

        Raises:
            BadInput: a sampler or a number of steps that the model cannot have.
        """
        self._backend, self._tokenizer, self._at_once = backend, tokenizer, at_once
        self.guidance, self.table = guidance, sampler_table(sampler, steps, backend.info.schedule)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        guidance: float | None = None,
        steps: int = 20,
        device: str = "auto",
        dtype: str = "auto",
    ) -> SDEdit:
        """With any text-to-image model of the SD1 or SD2 family: "pocket-base", a folder, a hub id or a single file.

        Args:
            guidance: None for `base_guidance`.

        Raises:
            ModelError: it cannot be loaded, or its UNet does not take 4 channels.
            BadInput: an unknown device or dtype, or as the constructor.
        """
        from ip2p_fast import checkpoints
        from ip2p_fast.backends.torch_backend import TorchBackend, resolve_device, resolve_dtype

        place = resolve_device(device)
        precision = resolve_dtype(dtype, place)
        checkpoint = checkpoints.load(model, in_channels=checkpoints.TEXT_TO_IMAGE_CHANNELS)
        scale = base_guidance(str(model)) if guidance is None else guidance
        return cls(TorchBackend(checkpoint, place, precision), checkpoint.tokenizer, scale, steps)

    @property
    def steps(self) -> int:
        """Of a picture at strength 1."""
        return self.table.steps

    def redraw(self, jobs: Sequence[Redrawing], advance: Callable[[int], None] = lambda done: None) -> list[np.ndarray]:
        """The pictures, [H, W, 3] uint8, at the model's size. A picture depends on its job alone.

        Args:
            advance: told the number of pictures done.

        Raises:
            BadInput: a strength out of range.
        """
        for job in jobs:
            if not 0 < job.strength <= 1:
                raise BadInput(f"a strength of {job.strength:g}: it must be above 0 and at most 1")
        loop, waiting = StepLoop(self._backend), iter(enumerate(jobs))
        places: dict[int, int] = {}
        done: dict[int, np.ndarray] = {}
        try:
            while len(done) < len(jobs):
                while len(places) < self._at_once and (following := next(waiting, None)) is not None:
                    place, job = following
                    (key,) = loop.add([self._edit(job)])
                    places[key] = place
                for key in loop.step():
                    done[places.pop(key)] = loop.finish(key)
                    advance(len(done))
        finally:
            loop.clear()
        return [done[place] for place in range(len(jobs))]

    def _edit(self, job: Redrawing) -> LoopEdit:
        info = self._backend.info
        picture = load_image(job.picture)
        size = target_size(*picture.size, int(info.defaults["size"]), info.size_multiple)
        table = self.table.from_step(_first_step(self.table.steps, job.strength))
        shape = (info.latent_channels, size[1] // info.vae_scale, size[0] // info.vae_scale)
        noise = _drawn(table, shape, job.seed)
        if job.strength < 1:
            # the loop starts from start_scale times noise, and the start is alpha z + sigma n
            alpha = float(table.levels[0, 0])
            noise[0] += (alpha / table.start_scale) * self._latents(np.array(fit(picture, size)))
        rows = tuple(
            row
            for row in (Row(True, False, self.guidance), Row(False, False, 1.0 - self.guidance))
            if row.weight != 0.0
        )
        tokens = np.stack([self._tokenizer.encode(text).ids for text in ("", job.caption)])
        return LoopEdit(None, tokens, table, (rows,) * table.steps, job.seed, noise=noise, size=(size[1], size[0]))

    @torch.inference_mode()
    def _latents(self, picture: np.ndarray) -> np.ndarray:
        """The mode of the autoencoder's posterior, scaled. [H, W, 3] uint8 -> [C, h, w] float32"""
        vae = self._backend.vae
        pixels = as_tensor(picture[None], vae.device).to(vae.dtype)
        mode = vae.encode(pixels).latent_dist.mode()[0]
        return (mode.float() * vae.config.scaling_factor).cpu().numpy()


def base_guidance(base: str) -> float:
    """The middle of the range that a base's defaults.json names for the generation of pairs, else GUIDANCE."""
    low, high = guidance_of(base)
    return GUIDANCE if (low, high) == Draws().cfg else (low + high) / 2


def _first_step(steps: int, strength: float) -> int:
    """As diffusers counts it, but that a step always remains."""
    return steps - max(1, math.floor(steps * strength + 1e-9))


def _drawn(table: SamplerTable, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """What the loop draws for a seed: the start, then one a step where the sampler adds noise. [1 + S, C, h, w]"""
    random = np.random.Generator(np.random.Philox(key=seed))
    noise = np.zeros((1 + table.steps, *shape), np.float32)
    for place in [0, *(1 + np.flatnonzero(table.coefficients[:, 4]))]:
        noise[place] = random.standard_normal(shape, dtype=np.float32)
    return noise
