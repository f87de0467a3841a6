"""diffusers' UNet as peers convert it: loaded alone, its inputs by name, and the pipeline's made to call another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

INPUTS = ("sample", "timestep", "encoder_hidden_states")


def load_unet(model: str) -> Any:
    """The UNet of a folder or hub id, in float32."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(model, subfolder="unet", torch_dtype=torch.float32).eval()


def example_inputs(unet: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Of three rows and unequal sides, so that none is taken for another."""
    side = 2 ** len(unet.config.block_out_channels)
    sample = torch.zeros(3, unet.config.in_channels, side, 2 * side)
    return sample, torch.zeros(()), torch.zeros(3, 77, unet.config.cross_attention_dim)


def replace_unet(pipe: Any, forward: Callable[..., tuple[Tensor]]) -> None:
    """The pipeline calls `forward` in its UNet's place; the UNet keeps its configuration and gives up its weights."""
    for weight in pipe.unet.parameters():
        weight.data = weight.data.new_empty(0)
    pipe.unet.forward = forward
