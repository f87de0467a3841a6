"""The text-to-image model of the pocket world: to the pocket model what Stable Diffusion is to InstructPix2Pix.

Pairs of training pictures are generated with it (`ip2p-fast dataset pairs`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from .clip import captions
from .data import Pairs
from .loop import Loss, Run
from .parallel import world
from .sizes import Size
from .unet import SCHEDULER, build_unet, changed_weight, draw_timesteps, encode_texts, fit, velocity_error

TEXT_DROPOUT = 0.1
_AT_ONCE = 4096


@dataclass(frozen=True)
class Captioned:
    """Pictures and what they show; N pairs, of which each picture is one to learn.

    latents: float16 [N, 2, 4, h, w], the VAE's mode, not scaled. contexts: float16 [1 + 2 N, 77, D], the text encoder's
    output: row 0 is of "", row 1 + 2 n + side of the caption of that picture. scale: the VAE's scaling factor.
    """

    latents: Tensor
    contexts: Tensor
    scale: float


def encode_captions(
    pairs: Pairs,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, count: None,
) -> Tensor:
    """`Captioned.contexts` of these pairs, every caption in a phrasing of its own."""
    texts = ["", *captions(pairs, np.random.default_rng(seed))]
    parts = []
    for first in range(0, len(texts), _AT_ONCE):
        parts.append(encode_texts(text_encoder, tokenizer, texts[first : first + _AT_ONCE]).half())
        advance(first, len(texts))
    return torch.cat(parts)


def train_base(size: Size, data: Captioned, run: Run) -> UNet2DConditionModel:
    """Trains a 4-channel UNet to predict v, one caption in ten dropped (Ho and Salimans 2022)."""
    torch.manual_seed(run.seed)
    unet = build_unet(size, in_channels=4)
    return fit(unet, base_loss(unet, data, size.base.batch // world()), size.base, run)


def base_loss(unet: UNet2DConditionModel, data: Captioned, batch: int) -> Loss:
    """The loss of one batch as a function of its random generator.

    Pictures come from pairs, and where the other picture of a pair differs counts more, as in the edit model's loss:
    the subject, a tenth of the picture, is what most pairs differ in.
    """

    def loss(rng: torch.Generator) -> Tensor:
        chosen = torch.randint(len(data.latents), (batch,), generator=rng)
        side = torch.randint(2, (batch,), generator=rng)
        noise = torch.randn(batch, *data.latents.shape[2:], generator=rng).to(unet.device)
        timesteps = draw_timesteps(batch, SCHEDULER["num_train_timesteps"], rng).to(unet.device)
        dropped = torch.rand(batch, generator=rng) < TEXT_DROPOUT

        text = data.contexts[(1 + 2 * chosen + side).masked_fill(dropped, 0)].to(unet.device).float()
        pair = data.latents[chosen].to(unet.device)
        target = pair[torch.arange(batch), side].float() * data.scale
        error = velocity_error(unet, target, None, noise, timesteps, text)
        return (error * changed_weight(pair[:, 0], pair[:, 1], data.scale)).mean()

    return loss
