"""A group norm and the 3x3 convolution that reads it, in 8 bits.

A norm's results have a range that its own weights tell, whatever the picture: of values within D standard deviations
of their group's mean, SiLU(bias +- D weight). So each channel has a scale that is known at load, which goes into the
convolution's weights, and no pass over the picture looks for the largest value. What lies beyond is cut.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kernels import quantize_rows, quantized_conv2d, quantized_group_norm_silu
from .kernels.reference import LARGEST
from .layers import Conv2d, GroupNorm

DEVIATIONS = {torch.int8: 8.0, torch.float8_e4m3fn: 16.0}
"""D. The steps of e4m3 shrink with the value, so twice the range costs little. `cpu.quality.*` has what all cost."""


class QuantizedGroupNorm(nn.Module):
    """Of a group norm that SiLU follows. `scale` [C] float32 is what 1 stands for in each channel."""

    def __init__(self, norm: GroupNorm, dtype: torch.dtype) -> None:
        super().__init__()
        self.groups, self.eps, self.dtype = norm.groups, norm.eps, dtype
        self.weight, self.bias = norm.weight, norm.bias
        weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
        ends = torch.stack([bias - DEVIATIONS[dtype] * weight, bias + DEVIATIONS[dtype] * weight])
        largest = F.silu(ends).abs().amax(0)
        self.scale = torch.where(largest == 0, 1.0, largest / LARGEST[dtype])  # a channel of zeros stays that

    def forward(self, x: Tensor, silu: bool = True, shift: Tensor | None = None) -> Tensor:
        """x [N, C, H, W]; shift [N, C] or None -> the same in 8 bits, channels-last"""
        assert silu
        return quantized_group_norm_silu(
            x, self.weight, self.bias, self.groups, self.scale, self.dtype, self.eps, shift
        )


class QuantizedConv2d(nn.Module):
    """Of a 3x3 convolution that reads what `norm` gives; the weights' own dtype is the result's."""

    def __init__(self, conv: Conv2d, norm: QuantizedGroupNorm) -> None:
        super().__init__()
        self.dtype = conv.weight.dtype
        weight = conv.weight.detach().float() * norm.scale[:, None, None]  # [O, C, 3, 3]
        taps_first = weight.permute(0, 2, 3, 1).contiguous()
        values, self.scale = quantize_rows(taps_first.flatten(1), norm.dtype)
        self.weight = values.view(taps_first.shape)
        self.bias = None if conv.bias is None else conv.bias.detach().clone()

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x [N, C, H, W] in 8 bits; residual [N, O, H, W] or None -> [N, O, H, W], channels-last"""
        return quantized_conv2d(x, self.weight, self.scale, self.dtype, self.bias, residual)
