"""Pixels to latents and instructions to text embeddings, by a model's frozen networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .draws import Purpose, generator_of
from .parts import Parts
from .recipe import DTYPES


@torch.no_grad()
def encode_pairs(parts: Parts, pixels: np.ndarray, precision: str = "no") -> tuple[Tensor, Tensor, Tensor]:
    """Input pictures' latents, and mean and deviation of the edited ones': float32 [B, 4, h, w] each, not scaled.

    The input picture's are the mode, as the paper conditions on it. pixels: uint8 [B, 2, H, W, 3]. precision: of
    `Recipe`.
    """
    device = next(parts.vae.parameters()).device
    batch = torch.from_numpy(pixels).to(device).permute(1, 0, 4, 2, 3)  # [2, B, 3, H, W]
    with autocast(device, precision):
        before, after = (parts.vae.encode(side / 127.5 - 1.0).latent_dist for side in batch)
    return before.mode().float(), after.mode().float(), after.std.float()


def targets(parts: Parts, mean: Tensor, deviation: Tensor | None, indices: Sequence[int], seed: int) -> Tensor:
    """Latents to be learnt, scaled: [B, 4, h, w] float32. deviation: None takes the mode, else they are drawn."""
    if deviation is not None:
        rngs = [generator_of(seed, Purpose.POSTERIOR, index) for index in indices]
        mean = mean + deviation * torch.stack([torch.randn(mean.shape[1:], generator=rng) for rng in rngs]).to(mean)
    return mean * parts.vae.config["scaling_factor"]


@torch.no_grad()
def encode_texts(parts: Parts, texts: Sequence[str], precision: str = "no") -> Tensor:
    """The text encoder's last hidden state, final norm included: float32 [B, 77, D] on its device."""
    tokens = parts.tokenizer(
        list(texts),
        padding="max_length",
        max_length=parts.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    device = next(parts.text_encoder.parameters()).device
    with autocast(device, precision):
        return parts.text_encoder(tokens.input_ids.to(device)).last_hidden_state.float()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Arithmetic in a recipe's precision."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "no")
