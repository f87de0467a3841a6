"""The loss: squared error of the predicted noise or velocity, conditions dropped for guidance without a classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ip2p_fast.samplers import NoiseSchedule

from ..pocket.dropout import draw_dropout
from .batches import Batch
from .draws import Purpose, generator_of
from .recipe import Recipe


def diffusion_loss(
    unet: Any, schedule: NoiseSchedule, batch: Batch, recipe: Recipe, purpose: Purpose = Purpose.DIFFUSION
) -> Tensor:
    """The mean over a batch, a scalar; noise, timestep and dropped conditions follow from each sample's place.

    A dropped image is zeros, a dropped text encode("") (InstructPix2Pix, section 3.2.1); in validation none is dropped.

    Args:
        unet: takes [B, 8, h, w], [B] and [B, 77, D], as diffusers' does, on the batch's device.
    """
    share = 0.0 if purpose == Purpose.VALIDATION else recipe.dropout
    draws = [_drawn(recipe.seed, purpose, index, batch, schedule, share) for index in batch.indices.tolist()]
    noise, timesteps, no_text, no_image = (torch.stack(drawn) for drawn in zip(*draws, strict=True))
    signal = torch.from_numpy(schedule.alphas_cumprod)[timesteps][:, None, None, None]  # float64, on the CPU
    weight = min_snr_weight(schedule, timesteps, recipe.min_snr).float()
    device = batch.target.device
    noise, alpha, sigma = (part.float().to(device) for part in (noise, signal.sqrt(), (1 - signal).sqrt()))
    timesteps, no_text, no_image, weight = (part.to(device) for part in (timesteps, no_text, no_image, weight))
    text = torch.where(no_text[:, None, None], batch.null, batch.text)
    image = batch.image.masked_fill(no_image[:, None, None, None], 0.0)

    noisy = alpha * batch.target + sigma * noise
    wanted = noise if schedule.prediction == "epsilon" else alpha * noise - sigma * batch.target
    predicted = unet(torch.cat([noisy, image], 1), timesteps, text).sample.float()
    error = (predicted - wanted).square().mean((1, 2, 3))  # [B]
    return (error * weight).mean()


def min_snr_weight(schedule: NoiseSchedule, timesteps: Tensor, gamma: float) -> Tensor:
    """Weights [B] of timesteps [B], both on the CPU; ones for gamma 0.

    They make of the loss one on clean latents, weighted by min(SNR, gamma) (Hang et al. 2023, section 3.4):
    min(SNR, gamma) / SNR for noise, / (SNR + 1) for velocity.
    """
    if not gamma:
        return torch.ones(len(timesteps))
    signal = torch.from_numpy(schedule.alphas_cumprod)[timesteps]
    snr = signal / (1 - signal)
    return snr.clamp(max=gamma) / (snr if schedule.prediction == "epsilon" else snr + 1)


def _drawn(
    seed: int, purpose: Purpose, index: int, batch: Batch, schedule: NoiseSchedule, share: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = generator_of(seed, purpose, index)
    noise = torch.randn(batch.target.shape[1:], generator=rng)
    timestep = torch.randint(schedule.length, (), generator=rng)
    no_text, no_image = draw_dropout(1, rng, share)
    return noise, timestep, no_text[0], no_image[0]
