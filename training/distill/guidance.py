"""Guidance distillation: the student's one row is to be the teacher's weighted sum of three.

Meng et al., CVPR 2023, stage one, for two scales: the prediction at (z, t, image, text; s_T, s_I) is matched to the
guided one. The student predicts what its teacher does, noise or velocity, so every sampler's table stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from ..pocket.unet import changed_weight, draw_timesteps
from .process import Process, noised
from .student import predict, together

if TYPE_CHECKING:
    from ..trainer.batches import Batch

Ranges: TypeAlias = tuple[tuple[float, float], tuple[float, float]]
"""(low, high) of s_T, and of s_I."""
OWN_SHARE = 0.25
"""Of the examples whose scales are the model's own."""


@dataclass(frozen=True)
class Lesson:
    """What both distillations need to know of a model besides its UNet.

    own          s_T and s_I that suit the model
    ranges       ((low, high) of s_T, (low, high) of s_I) that the student is to know
    latent_scale the autoencoder's scaling factor
    """

    process: Process
    own: tuple[float, float]
    ranges: Ranges
    latent_scale: float


def usual_ranges(own: tuple[float, float]) -> Ranges:
    """From 1, no guidance, to as far beyond each of the model's own scales as that is from 1."""
    text, image = (sorted((1.0, max(0.0, 1 + 2 * (scale - 1)))) for scale in own)
    return (text[0], text[1]), (image[0], image[1])


def draw_scales(lesson: Lesson, count: int, rng: torch.Generator) -> Tensor:
    """s_T and s_I of each example, uniform in their ranges; one in four has the model's own: [count, 2] float32."""
    low, high = torch.tensor(lesson.ranges).T
    scales = low + (high - low) * torch.rand(count, 2, generator=rng)
    return torch.where(torch.rand(count, 1, generator=rng) < OWN_SHARE, torch.tensor(lesson.own), scales)


def guidance_loss(
    student: UNet2DConditionModel, teacher: UNet2DConditionModel, lesson: Lesson, batch: Batch, rng: torch.Generator
) -> Tensor:
    """Squared error of the student's prediction to the guided teacher's, a scalar.

    Noisy latents are those of edited pictures, at timesteps that are drawn more often the noisier they are; what the
    edit changes counts more.
    """
    count, device = len(batch.target), student.device
    noise = torch.randn(batch.target.shape, generator=rng).to(device)
    timesteps = draw_timesteps(count, lesson.process.schedule.length, rng).to(device)
    scales = draw_scales(lesson, count, rng).to(device)

    image, text, target = (part.to(device).float() for part in (batch.image, batch.text, batch.target))
    null = batch.null.to(device).float().expand_as(text)
    noisy = noised(lesson.process, target, noise, timesteps)
    wanted = guided(teacher, noisy, image, timesteps, text, null, scales)
    error = (predict(student, noisy, image, timesteps, text, scales) - wanted).square().mean(1)  # [B, h, w]
    return (error * changed_weight(image * lesson.latent_scale, target, 1.0)).mean()


@torch.no_grad()
def guided(
    teacher: UNet2DConditionModel,
    noisy: Tensor,
    image: Tensor,
    timesteps: Tensor,
    text: Tensor,
    null: Tensor,
    scales: Tensor,
) -> Tensor:
    """The weighted sum of the teacher's three rows (Brooks et al. 2023, eq. 3): [B, 4, h, w] float32.

    noisy, image [B, 4, h, w]; timesteps [B]; text, null [B, 77, D]; scales [B, 2]
    """
    images = torch.cat([image, image, torch.zeros_like(image)])
    rows = together(noisy.repeat(3, 1, 1, 1), images)
    predicted = teacher(rows, timesteps.repeat(3), torch.cat([text, null, null])).sample.float().chunk(3)
    weights = (scales[:, 0], scales[:, 1] - scales[:, 0], 1 - scales[:, 1])
    return sum(weight[:, None, None, None] * row for weight, row in zip(weights, predicted, strict=True))
