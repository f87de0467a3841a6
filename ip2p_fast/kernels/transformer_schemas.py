"""The contract of the operators of transformers, as `schemas.py` has it of the others: schemas, checks, shapes.

8-bit tensors are int8 or float8_e4m3fn, with a float32 scale a row: value = 8-bit number x scale.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ip2p_fast.errors import BadInput

from .checks import alike, eight_bits, floating, shaped

SCHEMAS = {
    "attention": "(Tensor q, Tensor k, Tensor v) -> Tensor",
    "layer_norm": (
        "(Tensor x, Tensor weight, Tensor bias, float eps=1e-5, Tensor? residual=None, ScalarType? quantize=None)"
        " -> (Tensor, Tensor, Tensor)"
    ),
    "geglu": "(Tensor x, Tensor weight, Tensor bias) -> Tensor",
    "quantize_rows": "(Tensor x, ScalarType dtype) -> (Tensor, Tensor)",
    "quantized_linear": (
        "(Tensor x, Tensor x_scale, Tensor weight, Tensor weight_scale, Tensor? bias, ScalarType dtype,"
        " bool gated=False) -> Tensor"
    ),
}


def check_attention(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise BadInput unless the arguments fit together."""
    if q.dim() != 4 or q.shape[3] < 1:
        raise BadInput(f"attention: q has shape {list(q.shape)}; it must be [rows, heads, N, d >= 1]")
    rows, heads, _, dim = q.shape
    if k.dim() != 4 or (*k.shape[:2], k.shape[3]) != (rows, heads, dim) or k.shape[2] < 1:
        raise BadInput(f"attention: k has shape {list(k.shape)}; q asks for [{rows}, {heads}, M >= 1, {dim}]")
    if v.dim() != 4 or v.shape[:3] != k.shape[:3]:
        raise BadInput(f"attention: v has shape {list(v.shape)}; k asks for [{rows}, {heads}, {k.shape[2]}, any]")
    floating("attention", "v", v)
    for name, tensor in (("q", q), ("k", k)):
        alike("attention", name, tensor, "v", v)


def check_layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    quantize: torch.dtype | None = None,
) -> None:
    """Raise BadInput unless the arguments fit together."""
    floating("layer_norm", "x", x)
    if x.dim() < 1 or x.shape[-1] < 1:
        raise BadInput(f"layer_norm: x has shape {list(x.shape)}; it must be [..., C >= 1]")
    if not eps >= 0:
        raise BadInput(f"layer_norm: eps is {eps}; it must be zero or more")
    for name, tensor in (("weight", weight), ("bias", bias)):
        shaped("layer_norm", name, tensor, x.shape[-1:], x)
        floating("layer_norm", name, tensor)
    if residual is not None:
        shaped("layer_norm", "residual", residual, x.shape, x)
        alike("layer_norm", "residual", residual, "x", x)
    if quantize is not None:
        eight_bits("layer_norm", "quantize", quantize)


def check_geglu(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Raise BadInput unless the arguments fit together."""
    floating("geglu", "x", x)
    if weight.dim() != 2 or x.dim() < 1 or weight.shape[1] != x.shape[-1] or weight.shape[0] % 2:
        raise BadInput(f"geglu: weight is {list(weight.shape)}; x {list(x.shape)} asks for [2 N, {_last(x)}]")
    shaped("geglu", "bias", bias, weight.shape[:1], x)
    for name, tensor in (("weight", weight), ("bias", bias)):
        alike("geglu", name, tensor, "x", x)


def check_quantize_rows(x: Tensor, dtype: torch.dtype) -> None:
    """Raise BadInput unless the arguments fit together."""
    floating("quantize_rows", "x", x)
    if x.dim() < 1 or x.shape[-1] < 1:
        raise BadInput(f"quantize_rows: x has shape {list(x.shape)}; it must be [..., C >= 1]")
    eight_bits("quantize_rows", "dtype", dtype)


def check_quantized_linear(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    gated: bool = False,
) -> None:
    """Raise BadInput unless the arguments fit together."""
    name = "quantized_linear"
    eight_bits(name, "x", x.dtype)
    if weight.dtype != x.dtype:
        raise BadInput(f"{name}: weight is {weight.dtype}, x is {x.dtype}; they must be the same")
    if weight.dim() != 2 or x.dim() < 1 or weight.shape[1] != x.shape[-1] or (gated and weight.shape[0] % 2):
        raise BadInput(
            f"{name}: weight is {list(weight.shape)}; x {list(x.shape)} asks for"
            f" [{'2 N' if gated else 'N'}, {_last(x)}]"
        )
    if not dtype.is_floating_point or dtype.itemsize < 2:
        raise BadInput(f"{name}: dtype is {dtype}; the result must be float32, bfloat16 or float16")
    shaped(name, "weight", weight, weight.shape, x)
    for scale_name, scale, shape in (
        ("x_scale", x_scale, x.shape[:-1]),
        ("weight_scale", weight_scale, weight.shape[:1]),
    ):
        shaped(name, scale_name, scale, shape, x)
        if scale.dtype != torch.float32:
            raise BadInput(f"{name}: {scale_name} is {scale.dtype}; it must be float32")
    if bias is not None:
        shaped(name, "bias", bias, weight.shape[:1], x)
        floating(name, "bias", bias)


CHECKS: dict[str, Callable[..., None]] = {
    "attention": check_attention,
    "layer_norm": check_layer_norm,
    "geglu": check_geglu,
    "quantize_rows": check_quantize_rows,
    "quantized_linear": check_quantized_linear,
}


def _fake_attention(q, k, v):
    check_attention(q, k, v)
    return v.new_empty(v.shape[0], q.shape[2], v.shape[1], v.shape[3]).transpose(1, 2)


def _fake_layer_norm(x, weight, bias, eps=1e-5, residual=None, quantize=None):
    check_layer_norm(x, weight, bias, eps, residual, quantize)
    normed = x.new_empty(x.shape, dtype=quantize or x.dtype)
    scale = x.new_empty((0,) if quantize is None else x.shape[:-1], dtype=torch.float32)
    return normed, scale, x.new_empty((0,) if residual is None else x.shape)


def _fake_geglu(x, weight, bias):
    check_geglu(x, weight, bias)
    return x.new_empty(*x.shape[:-1], weight.shape[0] // 2)


def _fake_quantize_rows(x, dtype):
    check_quantize_rows(x, dtype)
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape[:-1], dtype=torch.float32)


def _fake_quantized_linear(x, x_scale, weight, weight_scale, bias, dtype, gated=False):
    check_quantized_linear(x, x_scale, weight, weight_scale, bias, dtype, gated)
    return x.new_empty(*x.shape[:-1], weight.shape[0] // (2 if gated else 1), dtype=dtype)


FAKES: dict[str, Callable[..., object]] = {
    "attention": _fake_attention,
    "layer_norm": _fake_layer_norm,
    "geglu": _fake_geglu,
    "quantize_rows": _fake_quantize_rows,
    "quantized_linear": _fake_quantized_linear,
}


def _last(x: Tensor) -> int | str:
    return x.shape[-1] if x.dim() else "K"
