"""The schemas of the project's operators, what they accept, and what they return without computing it.

Implementations live elsewhere: `reference.py` for every device, `csrc/cpu` and `csrc/cuda` through TORCH_LIBRARY_IMPL,
`triton_kernels`. This file is the contract that all of them keep.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ip2p_fast.errors import BadInput

from . import resnet_schemas, transformer_schemas

COEFFICIENTS = ("a", "b0", "b1", "b2", "c", "p", "q")  # the columns of guided_step's coefficients, in order

SCHEMAS = {
    "guided_step": (
        "(Tensor eps, Tensor row_start, Tensor weights, Tensor x, Tensor history, Tensor coefficients, Tensor noise)"
        " -> (Tensor, Tensor)"
    ),
    "paired_attention": "(Tensor q, Tensor k, Tensor v, Tensor source_of_row) -> Tensor",
    **resnet_schemas.SCHEMAS,
    **transformer_schemas.SCHEMAS,
}


def define() -> None:
    """Declare the operators and their shape functions. Called once, when `ip2p_fast.kernels` is imported."""
    for name, schema in SCHEMAS.items():
        torch.library.define(f"ip2p_fast::{name}", schema, tags=torch.Tag.pt2_compliant_tag)
    torch.library.register_fake("ip2p_fast::guided_step", _fake_guided_step)
    torch.library.register_fake("ip2p_fast::paired_attention", _fake_paired_attention)
    for name, fake in {**resnet_schemas.FAKES, **transformer_schemas.FAKES}.items():
        torch.library.register_fake(f"ip2p_fast::{name}", fake)


def check_guided_step(
    eps: Tensor, row_start: Tensor, weights: Tensor, x: Tensor, history: Tensor, coefficients: Tensor, noise: Tensor
) -> None:
    """Raise BadInput unless the arguments fit together. The values of `row_start` are read on the CPU only: no sync."""
    _check_guided_step_shapes(eps, row_start, weights, x, history, coefficients, noise)
    if row_start.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_row_start(row_start.tolist(), eps.shape[0])


def check_paired_attention(q: Tensor, k: Tensor, v: Tensor, source_of_row: Tensor) -> None:
    """Raise BadInput unless the arguments fit together. `source_of_row` is read on the CPU only: no sync."""
    _check_paired_attention_shapes(q, k, v, source_of_row)
    if source_of_row.device.type == "cpu" and not torch.compiler.is_compiling():
        for row, source in enumerate(source_of_row.tolist()):
            if not 0 <= source < q.shape[0]:
                raise BadInput(
                    f"paired_attention: source_of_row[{row}] is {source}; it must be one of the {q.shape[0]} rows of q"
                )


CHECKS: dict[str, Callable[..., None]] = {
    "guided_step": check_guided_step,
    "paired_attention": check_paired_attention,
    **resnet_schemas.CHECKS,
    **transformer_schemas.CHECKS,
}
"""Operator -> its check, which takes the operator's arguments."""


def _check_guided_step_shapes(
    eps: Tensor, row_start: Tensor, weights: Tensor, x: Tensor, history: Tensor, coefficients: Tensor, noise: Tensor
) -> None:
    if x.dim() != 4 or x.shape[0] < 1:
        raise BadInput(f"guided_step: x has shape {list(x.shape)}; it must be [edits >= 1, channels, height, width]")
    edits, *latent = x.shape
    rows = eps.shape[0] if eps.dim() else 0
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    for name, tensor, shape, dtype in (
        ("eps", eps, (rows, *latent), eps.dtype),
        ("row_start", row_start, (edits + 1,), torch.int64),
        ("weights", weights, (rows,), wide),
        ("x", x, x.shape, wide),
        ("history", history, (edits, 2, *latent), wide),
        ("coefficients", coefficients, (edits, len(COEFFICIENTS)), wide),
        ("noise", noise, x.shape, wide),
    ):
        if tensor.shape != shape:
            raise BadInput(f"guided_step: {name} has shape {list(tensor.shape)}; x and eps ask for {list(shape)}")
        if tensor.dtype != dtype:
            raise BadInput(f"guided_step: {name} is {tensor.dtype}; it must be {dtype} (only eps may be narrower)")
        if tensor.device != x.device:
            raise BadInput(f"guided_step: {name} is on {tensor.device}, x on {x.device}; move both to one device")
    if not eps.is_floating_point():
        raise BadInput(f"guided_step: eps is {eps.dtype}; it must be a floating-point tensor")


def _check_paired_attention_shapes(q: Tensor, k: Tensor, v: Tensor, source_of_row: Tensor) -> None:
    if q.dim() != 4 or q.shape[3] < 1:
        raise BadInput(f"paired_attention: q has shape {list(q.shape)}; it must be [maps, heads, N, d >= 1]")
    maps, heads, _, dim = q.shape
    if k.dim() != 4 or (*k.shape[:2], k.shape[3]) != (maps, heads, dim) or k.shape[2] < 1:
        raise BadInput(f"paired_attention: k has shape {list(k.shape)}; q asks for [{maps}, {heads}, M >= 1, {dim}]")
    if v.dim() != 4 or v.shape[1:3] != k.shape[1:3]:
        raise BadInput(f"paired_attention: v has shape {list(v.shape)}; k asks for [rows, {heads}, {k.shape[2]}, any]")
    if source_of_row.dtype != torch.int64 or source_of_row.shape != v.shape[:1]:
        raise BadInput(
            f"paired_attention: source_of_row is {source_of_row.dtype} {list(source_of_row.shape)};"
            f" v asks for int64 [{v.shape[0]}]"
        )
    if not v.is_floating_point():
        raise BadInput(f"paired_attention: v is {v.dtype}; it must be a floating-point tensor")
    for name, tensor in (("q", q), ("k", k)):
        if tensor.dtype != v.dtype:
            raise BadInput(f"paired_attention: {name} is {tensor.dtype}, v is {v.dtype}; they must be the same")
    for name, tensor in (("q", q), ("k", k), ("source_of_row", source_of_row)):
        if tensor.device != v.device:
            raise BadInput(f"paired_attention: {name} is on {tensor.device}, v on {v.device}; move both to one device")


def _check_row_start(starts: list[int], rows: int) -> None:
    rising = all(first <= second for first, second in zip(starts, starts[1:], strict=False))
    if not rising or starts[0] < 0 or starts[-1] > rows:
        raise BadInput(f"guided_step: row_start is {starts}; it must rise from 0 to {rows}, the rows of eps, at most")


def _fake_guided_step(eps, row_start, weights, x, history, coefficients, noise):
    _check_guided_step_shapes(eps, row_start, weights, x, history, coefficients, noise)
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        torch.empty_like(history, memory_format=torch.contiguous_format),
    )


def _fake_paired_attention(q, k, v, source_of_row):
    _check_paired_attention_shapes(q, k, v, source_of_row)
    return v.new_empty(v.shape[0], v.shape[1], q.shape[2], v.shape[3])
