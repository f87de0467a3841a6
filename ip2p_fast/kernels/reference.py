"""The operators in plain PyTorch: the oracle of the tests, and what runs where no kernel is built.

All are differentiable, run on any device, and compute in float32, or in float64 when they are given float64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ip2p_fast.kernels.resnet_schemas import TAPS, output_format

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The largest magnitude of an 8-bit number: what the largest value of a quantized row is brought to."""


def guided_step(
    eps: Tensor, row_start: Tensor, weights: Tensor, x: Tensor, history: Tensor, coefficients: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """See `ip2p_fast.kernels.guided_step`."""
    rows = torch.arange(eps.shape[0], device=eps.device)
    edit_of_row = torch.searchsorted(row_start, rows, right=True) - 1
    owned = (edit_of_row >= 0) & (edit_of_row < x.shape[0])  # rows outside [row_start[0], row_start[E]) are no edit's
    weighted = _times(torch.where(owned, weights, 0).view(-1, 1, 1, 1), eps.to(x.dtype))  # [R, C, h, w]
    guided = torch.zeros_like(x).index_add(0, edit_of_row.clamp(0, x.shape[0] - 1), weighted)  # [E, C, h, w]

    a, b0, b1, b2, c, p, q = coefficients.view(-1, 7, 1, 1, 1).unbind(1)  # each [E, 1, 1, 1]
    earlier, before_that = history.unbind(1)
    clean = _times(p, x) + _times(q, guided)
    x_next = _times(a, x) + _times(b0, clean) + _times(b1, earlier) + _times(b2, before_that) + _times(c, noise)
    return x_next.contiguous(), torch.stack((clean, earlier), dim=1)


def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float = 1e-5,
    shift: Tensor | None = None,
    silu: bool = True,
) -> Tensor:
    """See `ip2p_fast.kernels.group_norm_silu`."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    y = x.to(wide)
    if shift is not None:
        y = y + shift.to(wide)[:, :, None, None]
    # not F.group_norm, which refuses a group of one value
    y = torch.group_norm(y, groups, weight.to(wide), bias.to(wide), eps)
    y = F.silu(y) if silu else y
    return y.to(x.dtype).contiguous(memory_format=output_format(x))


def quantized_group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    scale: Tensor,
    dtype: torch.dtype,
    eps: float = 1e-5,
    shift: Tensor | None = None,
) -> Tensor:
    """See `ip2p_fast.kernels.quantized_group_norm_silu`."""
    y = group_norm_silu(x.to(_wide(x)), weight, bias, groups, eps, shift) / scale.to(_wide(x))[:, None, None]
    y = y.clamp(-LARGEST[dtype], LARGEST[dtype])
    return (y.round() if dtype == torch.int8 else y).to(dtype).contiguous(memory_format=torch.channels_last)


def quantized_conv2d(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """See `ip2p_fast.kernels.quantized_conv2d`. The sums are in float32 here, which rounds the largest of int8."""
    y = F.conv2d(x.float(), weight.float().permute(0, 3, 1, 2), padding=TAPS // 2) * scale[:, None, None]
    y = y if bias is None else y + bias.float()[:, None, None]
    y = y if residual is None else y + residual.float()
    return y.to(dtype).contiguous(memory_format=torch.channels_last)


def paired_attention(q: Tensor, k: Tensor, v: Tensor, source_of_row: Tensor) -> Tensor:
    """See `ip2p_fast.kernels.paired_attention`. The maps are made, as the paper has it: [rows, heads, N, M] of them."""
    wide = torch.float64 if v.dtype == torch.float64 else torch.float32
    logits = torch.einsum("rhnd,rhmd->rhnm", q.to(wide), k.to(wide)) * q.shape[-1] ** -0.5
    maps = logits.softmax(-1)[source_of_row]
    return torch.einsum("rhnm,rhmd->rhnd", maps, v.to(wide)).to(v.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See `ip2p_fast.kernels.attention`."""
    wide = _wide(v)
    maps = (torch.einsum("rhnd,rhmd->rhnm", q.to(wide), k.to(wide)) * q.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("rhnm,rhmd->rnhd", maps, v.to(wide)).to(v.dtype).contiguous().transpose(1, 2)


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    quantize: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `ip2p_fast.kernels.layer_norm`; what was not asked for is empty."""
    wide = _wide(x)
    summed = x.new_empty(0) if residual is None else (x.to(wide) + residual.to(wide)).to(x.dtype).contiguous()
    y = x if residual is None else summed
    normed = F.layer_norm(y.to(wide), y.shape[-1:], weight.to(wide), bias.to(wide), eps)
    if quantize is not None:
        return *quantize_rows(normed, quantize), summed
    return normed.to(x.dtype).contiguous(), x.new_empty(0, dtype=torch.float32), summed


def geglu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `ip2p_fast.kernels.geglu`."""
    wide = _wide(x)
    return _gate(F.linear(x.to(wide), weight.to(wide), bias.to(wide))).to(x.dtype)


def quantize_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See `ip2p_fast.kernels.quantize_rows`."""
    y = x.to(_wide(x)).contiguous()
    largest = y.abs().amax(-1, keepdim=True)
    scale = torch.where(largest == 0, 1.0, largest / LARGEST[dtype]).float()  # [..., 1]
    y = y / scale
    return (y.round() if dtype == torch.int8 else y).to(dtype), scale[..., 0].contiguous()


def quantized_linear(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    gated: bool = False,
) -> Tensor:
    """See `ip2p_fast.kernels.quantized_linear`."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    y = F.linear(x.to(wide), weight.to(wide)) * x_scale.to(wide)[..., None] * weight_scale.to(wide)
    y = y if bias is None else y + bias.to(wide)
    return (_gate(y) if gated else y).to(dtype)


def _gate(both: Tensor) -> Tensor:
    value, gate = both.chunk(2, dim=-1)
    return value * F.gelu(gate)


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _times(coefficient: Tensor, value: Tensor) -> Tensor:
    # 0 x NaN is NaN: a term whose coefficient is exactly zero is absent, whatever its value holds
    return torch.where(coefficient != 0, coefficient * value, 0)
