"""Group norm whose backward pass keeps channels last.

PyTorch's CPU backward walks a channels-last tensor channel by channel; at 64x64 that is 40% of a training step of the
autoencoder. This one sums over the pixels with the tensor as it lies, and is three times as fast.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def keep_channels_last(model: AnyModule, device: str = "cpu") -> AnyModule:
    """Gives every group norm of the model the backward below, for channels-last CPU tensors; names and weights stay."""
    for module in model.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = _ChannelsLastGroupNorm
    return nn.Module.to(model, device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


class _ChannelsLastGroupNorm(nn.GroupNorm):
    def forward(self, input: Tensor) -> Tensor:
        if input.device.type == "cpu" and input.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last):
            return _GroupNorm.apply(input, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(input)


class _GroupNorm(torch.autograd.Function):
    """y = (x - mean) * rstd * weight + bias, x [B, C, H, W]; statistics over the pixels and channels of a group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels, height, width = x.shape
        y, mean, rstd = torch.native_group_norm(
            x, weight.to(x.dtype), bias.to(x.dtype), batch, channels, height * width, groups, eps
        )
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        batch, channels, height, width = x.shape
        groups = mean.shape[1]
        share = channels // groups
        x = x.permute(0, 2, 3, 1).reshape(batch, -1, channels)  # [B, HW, C], no copy
        grad = grad.permute(0, 2, 3, 1).reshape(batch, -1, channels)
        mean, rstd = mean.float(), rstd.float()  # [B, G]
        sum_grad = grad.sum(1).float()  # [B, C]
        sum_grad_x = (grad * x).sum(1).float()
        mean_c, rstd_c = mean.repeat_interleave(share, 1), rstd.repeat_interleave(share, 1)
        grad_weight = ((sum_grad_x - sum_grad * mean_c) * rstd_c).sum(0)

        by_group = (sum_grad * weight).view(batch, groups, share).sum(2)
        by_group_x = (sum_grad_x * weight).view(batch, groups, share).sum(2)
        of_x = (by_group * mean - by_group_x) * rstd**3 / (height * width * share)
        constant = -of_x * mean - by_group * rstd / (height * width * share)

        def spread(value: Tensor) -> Tensor:
            return value.repeat_interleave(share, 1)[:, None].to(x.dtype)

        scale = (rstd_c * weight)[:, None].to(x.dtype)
        grad_x = torch.addcmul(torch.addcmul(spread(constant), grad, scale), x, spread(of_x))
        return grad_x.view(batch, height, width, channels).permute(0, 3, 1, 2), grad_weight, sum_grad.sum(0), None, None
