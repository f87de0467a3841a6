"""A linear layer of 8-bit weights, which reads rows that are in 8 bits already or quantizes them itself.

On a GPU the products run on its 8-bit matrix units; elsewhere the reference computes the same numbers, slowly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .kernels import quantize_rows, quantized_linear


class QuantizedRows(NamedTuple):
    """values [..., C] int8 or float8_e4m3fn; scale [...] float32: a row is its values times its scale."""

    values: Tensor
    scale: Tensor


class QuantizedLinear(nn.Module):
    """Of a weight [N, K], kept in the 8-bit `dtype`, and a bias [N] or None; the weight's own dtype is the result's."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = weight.dtype
        self.weight, self.scale = quantize_rows(weight.detach(), dtype)
        self.bias = None if bias is None else bias.detach().clone()

    def forward(self, x: Tensor | QuantizedRows, residual: Tensor | None = None, gated: bool = False) -> Tensor:
        """x [..., K], residual [..., N] or None -> [..., N], or half of it where the second half gates the first"""
        rows = x if isinstance(x, QuantizedRows) else QuantizedRows(*quantize_rows(x, self.weight.dtype))
        y = quantized_linear(rows.values, rows.scale, self.weight, self.scale, self.bias, self.dtype, gated)
        return y if residual is None else y + residual
