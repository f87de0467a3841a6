"""Step distillation: from any noisy latents the student predicts at once where its teacher would end.

The function learnt is that of consistency models (Song et al., ICML 2023), guided and for latents as in latent
consistency models (Luo et al. 2023), and the sampler is theirs, `lcm`. Two things differ from those. The teacher, which
here needs one row, walks the whole way by DDIM (Knowledge distillation, Luhman and Luhman 2021, from every timestep):
there is no target network whose errors add up from hop to hop. And it stops where the longest few-step edit takes its
last step, with what it predicts there: the mean of what is left to decide, which is nearer to the right picture than
any one draw.

The prediction of the clean latents is d = p x + q e, as in every sampler's table; at these timesteps the boundary
scalings of `lcm` are 0 and 1 to five digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from ip2p_fast.samplers import LCM_GRID, sampler_table

from ..pocket.unet import changed_weight
from .guidance import Lesson, draw_scales
from .process import CLEAN, Process, clean_latents, ddim_step, noised
from .student import predict

if TYPE_CHECKING:
    from ..trainer.batches import Batch

HUBER = 0.03
"""Errors of latents well above this count as they are, those below it squared."""


@dataclass(frozen=True)
class Walk:
    """How the teacher goes from noisy latents to clean ones: with the strides of an edit of `most` steps, to its last.

    most  steps of the longest edit that the student is for
    hop   evaluations after which the student's own prediction takes over, as in LCM; 0: never
    """

    most: int = 8
    hop: int = 0


def consistency_loss(
    student: UNet2DConditionModel,
    teacher: UNet2DConditionModel,
    lesson: Lesson,
    walk: Walk,
    batch: Batch,
    rng: torch.Generator,
) -> Tensor:
    """Pseudo-Huber distance of the student's clean latents to the teacher's end, a scalar; the edit counts more.

    teacher: itself told the scales. At the last timestep both start from noise alone, as an edit does; the latents
    of that timestep as trained on still show the picture's mean.
    """
    count, device, process = len(batch.target), student.device, lesson.process
    noise = torch.randn(batch.target.shape, generator=rng).to(device)
    timesteps = draw_few_step_timesteps(process, walk.most, count, rng).to(device)
    scales = draw_scales(lesson, count, rng).to(device)

    image, text, target = (part.to(device).float() for part in (batch.image, batch.text, batch.target))
    start = (timesteps == process.schedule.length - 1)[:, None, None, None]
    noisy = torch.where(start, noise, noised(process, target, noise, timesteps))
    with torch.no_grad():
        end = endpoint(student, teacher, process, walk, noisy, image, timesteps, text, scales)
    found = clean_latents(process, noisy, predict(student, noisy, image, timesteps, text, scales), timesteps)
    error = ((found - end).square().mean(1) + HUBER**2).sqrt() - HUBER  # [B, h, w]
    return (error * changed_weight(image * lesson.latent_scale, target, 1.0)).mean()


def draw_few_step_timesteps(process: Process, most: int, count: int, rng: torch.Generator) -> Tensor:
    """int64 [count]: any step of an `lcm` edit of any number of steps up to `most`, as often as edits ask for it."""
    lengths = torch.randint(1, most + 1, (count,), generator=rng)
    places = (torch.rand(count, generator=rng) * lengths).long()
    drawn = zip(lengths.tolist(), places.tolist(), strict=True)
    return torch.stack([_few_step_timesteps(process, length)[place] for length, place in drawn])


def endpoint(
    student: UNet2DConditionModel,
    teacher: UNet2DConditionModel,
    process: Process,
    walk: Walk,
    noisy: Tensor,
    image: Tensor,
    timesteps: Tensor,
    text: Tensor,
    scales: Tensor,
) -> Tensor:
    """Clean latents at the end of the teacher's walk from each example's timestep: [B, 4, h, w] float32."""
    latents, at = noisy.clone(), timesteps.clone()
    stride = LCM_GRID // walk.most * (process.schedule.length // LCM_GRID)
    last = int(_few_step_timesteps(process, walk.most)[-1])
    evaluations = 0
    while len(going := (at != CLEAN).nonzero()[:, 0]):
        taken_over = evaluations == walk.hop > 0
        x, now = latents[going], at[going]
        predicted = predict(student if taken_over else teacher, x, image[going], now, text[going], scales[going])
        clean = clean_latents(process, x, predicted, now)
        to = torch.where(now - stride < (math.inf if taken_over else last), CLEAN, now - stride)
        latents[going], at[going] = ddim_step(process, x, clean, now, to), to
        evaluations += 1
    return latents


def _few_step_timesteps(process: Process, steps: int) -> Tensor:
    """Where the UNet is asked in an edit of so many steps: int64 [steps], from high to low."""
    return torch.from_numpy(sampler_table("lcm", steps, process.schedule).timesteps).long()
