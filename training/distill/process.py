"""The noise process of a model, on a batch that stands at many timesteps at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ip2p_fast.samplers import NoiseSchedule

CLEAN = -1
"""The timestep of latents without noise."""


@dataclass(frozen=True)
class Process:
    """alpha, sigma: float32 [T + 1], shares of signal and noise at timesteps 0 .. T - 1; the last entry is CLEAN's."""

    schedule: NoiseSchedule
    alpha: Tensor
    sigma: Tensor

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Process:
        """From a diffusers scheduler_config. Raises ModelError on a schedule that is not supported."""
        schedule = NoiseSchedule.from_config(config)
        signal = np.append(schedule.alphas_cumprod, 1.0)
        alpha, sigma = (torch.from_numpy(np.sqrt(share)).float() for share in (signal, 1.0 - signal))
        return cls(schedule, alpha, sigma)

    def levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Shares of signal and of noise at timesteps [B]: two float32 [B, 1, 1, 1]."""
        at = timesteps.cpu()
        return tuple(share[at][:, None, None, None].to(timesteps.device) for share in (self.alpha, self.sigma))  # type: ignore[return-value]


def noised(process: Process, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """The latents [B, 4, h, w] of these timesteps [B]."""
    alpha, sigma = process.levels(timesteps)
    return alpha * clean + sigma * noise


def clean_latents(process: Process, noisy: Tensor, prediction: Tensor, timesteps: Tensor) -> Tensor:
    """d = p x + q e of `ip2p_fast.samplers`: the clean latents that a prediction of noise or of velocity stands for."""
    alpha, sigma = process.levels(timesteps)
    if process.schedule.prediction == "epsilon":
        return (noisy - sigma * prediction) / alpha
    return alpha * noisy - sigma * prediction


def ddim_step(process: Process, noisy: Tensor, clean: Tensor, timesteps: Tensor, to: Tensor) -> Tensor:
    """Latents of the earlier timesteps `to` [B] on the way to `clean`; Song et al. 2021 (DDIM), eq. 12 with eta = 0."""
    alpha, sigma = process.levels(timesteps)
    alpha_to, sigma_to = process.levels(to)
    return alpha_to * clean + sigma_to * (noisy - alpha * clean) / sigma
