"""The contract of the operators of residual blocks, as `schemas.py` has it of the others: schemas, checks, shapes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ip2p_fast.errors import BadInput

from .checks import alike, eight_bits, floating, shaped

SCHEMAS = {
    "group_norm_silu": (
        "(Tensor x, Tensor weight, Tensor bias, int groups, float eps=1e-5, Tensor? shift=None, bool silu=True)"
        " -> Tensor"
    ),
    "quantized_group_norm_silu": (
        "(Tensor x, Tensor weight, Tensor bias, int groups, Tensor scale, ScalarType dtype, float eps=1e-5,"
        " Tensor? shift=None) -> Tensor"
    ),
    "quantized_conv2d": (
        "(Tensor x, Tensor weight, Tensor scale, ScalarType dtype, Tensor? bias=None, Tensor? residual=None) -> Tensor"
    ),
}
TAPS = 3
"""Weights a side of a quantized convolution."""


def output_format(x: Tensor) -> torch.memory_format:
    """The memory format of a kernel's output: that of its input [N, C, H, W], whole or a slice of a larger tensor."""
    return torch.channels_last if x.stride(1) == 1 and not x.is_contiguous() else torch.contiguous_format


def check_group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float = 1e-5,
    shift: Tensor | None = None,
    silu: bool = True,
) -> None:
    """Raise BadInput unless the arguments fit together."""
    _check_norm("group_norm_silu", x, weight, bias, groups, eps, shift)


def check_quantized_group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    scale: Tensor,
    dtype: torch.dtype,
    eps: float = 1e-5,
    shift: Tensor | None = None,
) -> None:
    """Raise BadInput unless the arguments fit together."""
    _check_norm("quantized_group_norm_silu", x, weight, bias, groups, eps, shift)
    _scales("quantized_group_norm_silu", scale, x.shape[1], x)
    eight_bits("quantized_group_norm_silu", "dtype", dtype)


def check_quantized_conv2d(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> None:
    """Raise BadInput unless the arguments fit together."""
    name = "quantized_conv2d"
    eight_bits(name, "x", x.dtype)
    if x.dim() != 4:
        raise BadInput(f"{name}: x has shape {list(x.shape)}; it must be [N, C, H, W]")
    images, channels, height, width = x.shape
    if weight.dim() != 4 or weight.shape[1:] != (TAPS, TAPS, channels):
        raise BadInput(f"{name}: weight has shape {list(weight.shape)}; x asks for [O, {TAPS}, {TAPS}, {channels}]")
    alike(name, "weight", weight, "x", x)
    if not dtype.is_floating_point or dtype.itemsize < 2:
        raise BadInput(f"{name}: dtype is {dtype}; the result must be float32, bfloat16 or float16")
    _scales(name, scale, len(weight), x)
    if bias is not None:
        shaped(name, "bias", bias, (len(weight),), x)
        floating(name, "bias", bias)
    if residual is not None:
        shaped(name, "residual", residual, (images, len(weight), height, width), x)
        if residual.dtype != dtype:
            raise BadInput(f"{name}: residual is {residual.dtype}; it must be {dtype}, as the result")


CHECKS: dict[str, Callable[..., None]] = {
    "group_norm_silu": check_group_norm_silu,
    "quantized_group_norm_silu": check_quantized_group_norm_silu,
    "quantized_conv2d": check_quantized_conv2d,
}


def _fake_group_norm_silu(x, weight, bias, groups, eps=1e-5, shift=None, silu=True):
    check_group_norm_silu(x, weight, bias, groups, eps, shift)
    return torch.empty_like(x, memory_format=output_format(x))


def _fake_quantized_group_norm_silu(x, weight, bias, groups, scale, dtype, eps=1e-5, shift=None):
    check_quantized_group_norm_silu(x, weight, bias, groups, scale, dtype, eps, shift)
    return torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)


def _fake_quantized_conv2d(x, weight, scale, dtype, bias=None, residual=None):
    check_quantized_conv2d(x, weight, scale, dtype, bias, residual)
    shape = (x.shape[0], len(weight), *x.shape[2:])
    return x.new_empty(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


FAKES: dict[str, Callable[..., object]] = {
    "group_norm_silu": _fake_group_norm_silu,
    "quantized_group_norm_silu": _fake_quantized_group_norm_silu,
    "quantized_conv2d": _fake_quantized_conv2d,
}


def _check_norm(
    operator: str, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, shift: Tensor | None
) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise BadInput(f"{operator}: x is {x.dtype} {list(x.shape)}; it must be floating-point [N, C, H, W]")
    images, channels = x.shape[:2]
    if groups < 1 or channels % groups:
        raise BadInput(f"{operator}: {channels} channels do not divide into {groups} groups; choose a divisor")
    if not eps >= 0:
        raise BadInput(f"{operator}: eps is {eps}; it must be zero or more")
    for name, tensor, shape in (
        ("weight", weight, [channels]),
        ("bias", bias, [channels]),
        ("shift", shift, [images, channels]),
    ):
        if tensor is None:
            continue
        if list(tensor.shape) != shape or not tensor.is_floating_point():
            raise BadInput(
                f"{operator}: {name} is {tensor.dtype} {list(tensor.shape)}; it must be floating-point {shape}"
            )
        if tensor.device != x.device:
            raise BadInput(f"{operator}: {name} is on {tensor.device}, x on {x.device}; move both to one device")


def _scales(operator: str, scale: Tensor, channels: int, x: Tensor) -> None:
    shaped(operator, "scale", scale, (channels,), x)
    if scale.dtype != torch.float32:
        raise BadInput(f"{operator}: scale is {scale.dtype}; it must be float32")
