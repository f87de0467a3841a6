"""The one-row student: what the pocket model does in three rows, told both guidance scales.

Guidance distillation (Meng et al., CVPR 2023, stage one): the student's prediction at (z, t, image, text; s_T, s_I) is
to be the teacher's weighted sum of three. It predicts v as its teacher does, so every sampler table stays as it is.
"""

from __future__ import annotations

import copy

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from ip2p_fast.layers import embed_scales

from .loop import Loss, Run
from .parallel import world
from .sizes import Size
from .unet import SCHEDULER, Latents, changed_weight, draw_timesteps, fit, noise_levels

GUIDANCE_DIM = 64
"""Width of the embedding of both scales."""


def train_student(size: Size, teacher: UNet2DConditionModel, data: Latents, run: Run) -> UNet2DConditionModel:
    """Trains a copy of the teacher that is told the scales; at first it leaves them unread."""
    torch.manual_seed(run.seed)
    student = grow_student(teacher)
    frozen = teacher.to(device=run.device, memory_format=torch.channels_last)  # type: ignore[call-arg]  # diffusers wraps
    loss = distillation_loss(student, frozen.requires_grad_(False).eval(), size, data, size.student.batch // world())
    return fit(student, loss, size.student, run)


def grow_student(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy of the teacher with a projection of the embedded scales, which is zero."""
    config = {name: value for name, value in teacher.config.items() if not name.startswith("_")}
    student = UNet2DConditionModel(**config | {"time_cond_proj_dim": GUIDANCE_DIM})
    left = student.load_state_dict(copy.deepcopy(teacher.state_dict()), strict=False)
    assert left.missing_keys == ["time_embedding.cond_proj.weight"] and not left.unexpected_keys
    torch.nn.init.zeros_(student.time_embedding.cond_proj.weight)
    return student


def distillation_loss(
    student: UNet2DConditionModel, teacher: UNet2DConditionModel, size: Size, data: Latents, batch: int
) -> Loss:
    """The loss of one batch as a function of its random generator: squared error of v to the teacher's guided v.

    Noisy latents are those of edited pictures; what the edit changes counts more, as in the teacher's own training.
    """

    def loss(rng: torch.Generator) -> Tensor:
        device = student.device
        chosen = torch.randint(len(data.latents), (batch,), generator=rng)
        backwards = torch.randint(2, (batch,), generator=rng)
        phrasing = torch.randint(data.texts.shape[2], (batch,), generator=rng)
        noise = torch.randn(batch, *data.latents.shape[2:], generator=rng).to(device)
        timesteps = draw_timesteps(batch, SCHEDULER["num_train_timesteps"], rng).to(device)
        scales = draw_scales(size, batch, rng).to(device)

        text = data.contexts[data.texts[chosen, backwards, phrasing]].to(device).float()
        null = data.contexts[:1].to(device).float().expand_as(text)
        pair = data.latents[chosen].to(device)
        each = torch.arange(batch)
        image = pair[each, backwards].float()
        a, s = (level[:, None, None, None] for level in noise_levels(timesteps))
        noisy = a * pair[each, 1 - backwards].float() * data.scale + s * noise
        target = guided(teacher, noisy, image, timesteps, text, null, scales)
        inputs = _together(noisy, image)
        condition = embed_scales(scales, GUIDANCE_DIM)
        predicted = student(inputs, timesteps, text, timestep_cond=condition).sample.float()
        error = (predicted - target).square().mean(1)  # [B, h, w]
        return (error * changed_weight(pair[:, 0], pair[:, 1], data.scale)).mean()

    return loss


def draw_scales(size: Size, count: int, rng: torch.Generator) -> Tensor:
    """s_T and s_I of each example: from 1 to as far beyond the model's own as that is from 1, one in four its own.

    -> [count, 2] float32
    """
    own = torch.tensor([size.text_guidance, size.image_guidance])
    scales = 1 + 2 * (own - 1) * torch.rand(count, 2, generator=rng)
    return torch.where(torch.rand(count, 1, generator=rng) < 0.25, own, scales)


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
    rows = _together(noisy.repeat(3, 1, 1, 1), images)
    predicted = teacher(rows, timesteps.repeat(3), torch.cat([text, null, null])).sample.float().chunk(3)
    weights = (scales[:, 0], scales[:, 1] - scales[:, 0], 1 - scales[:, 1])
    return sum(weight[:, None, None, None] * row for weight, row in zip(weights, predicted, strict=True))


def _together(noisy: Tensor, image: Tensor) -> Tensor:
    return torch.cat([noisy, image], 1).contiguous(memory_format=torch.channels_last)
