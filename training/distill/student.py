"""The student: a copy of its teacher that is told both guidance scales, and needs one row."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from ip2p_fast.layers import embed_scales
from ip2p_fast.unet_config import CONDITIONED_ON, SCALES

FEW_STEPS = "few_steps"
"""The key of a step-distilled UNet's config.json that says how many steps its edits take at most."""


def grow_student(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy of the teacher with a projection of the embedded scales, which is zero: at first they are not heard.

    The embedding is as wide as the first level, and at most 256, its width in latent consistency models.
    """
    config = {name: value for name, value in teacher.config.items() if not name.startswith("_")}
    width = min(256, teacher.config["block_out_channels"][0] // 4 * 4)
    student = UNet2DConditionModel(**config | {"time_cond_proj_dim": width})
    left = student.load_state_dict(copy.deepcopy(teacher.state_dict()), strict=False)
    assert left.missing_keys == ["time_embedding.cond_proj.weight"] and not left.unexpected_keys
    torch.nn.init.zeros_(student.time_embedding.cond_proj.weight)
    return student


def frozen(teacher: UNet2DConditionModel, device: str) -> UNet2DConditionModel:
    """The teacher on its device, to be run and never trained."""
    teacher.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-arg]  # diffusers wraps `to`
    return teacher.requires_grad_(False).eval()


def predict(
    student: UNet2DConditionModel, noisy: Tensor, image: Tensor, timesteps: Tensor, text: Tensor, scales: Tensor
) -> Tensor:
    """The student's one row: [B, 4, h, w] float32.

    noisy, image [B, 4, h, w]; timesteps [B]; text [B, 77, D]; scales [B, 2], s_T and s_I
    """
    condition = embed_scales(scales, student.config["time_cond_proj_dim"])
    return student(together(noisy, image), timesteps, text, timestep_cond=condition).sample.float()


def declared(config: Mapping[str, Any], few_steps: int | None = None) -> dict[str, Any]:
    """A student's unet/config.json: what it is told, and the steps that it was distilled to, if it was."""
    return {**config, CONDITIONED_ON: list(SCALES)} | ({FEW_STEPS: few_steps} if few_steps else {})


def together(noisy: Tensor, image: Tensor) -> Tensor:
    """The eight channels of an InstructPix2Pix UNet: [B, 8, h, w]."""
    return torch.cat([noisy, image], 1).contiguous(memory_format=torch.channels_last)
