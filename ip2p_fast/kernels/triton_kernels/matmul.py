"""x W^T in Triton with what follows it before the result is stored: scales of quantized operands, bias, GEGLU's gate.

Lineage: Triton's tutorial of matrix multiplication (blocks in groups that share operands in L2). The numbers are those
of the operators that launch it: `geglu.py`, `quantized_linear.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MULTIPROCESSORS = 132  # an H100's


@dataclass(frozen=True)
class Tiles:
    """Rows, columns and depth of a block, and warps."""

    rows: int
    columns: int
    depth: int
    warps: int


def launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    x_scale: Tensor | None = None,
    weight_scale: Tensor | None = None,
    gated: bool = False,
) -> None:
    """Fills `out` [M, N] from x [M, K] and weight [N, K], or [2 N, K] where the second half gates the first."""
    rows, columns = out.shape
    if out.numel() == 0:
        return
    chosen = tiles(rows, columns, x.element_size(), gated)
    grid = (triton.cdiv(rows, chosen.rows) * triton.cdiv(columns, chosen.columns),)
    matmul_kernel[grid](
        x.contiguous(),
        weight.contiguous(),
        None if bias is None else bias.contiguous(),
        None if x_scale is None else x_scale.contiguous(),
        None if weight_scale is None else weight_scale.contiguous(),
        out,
        rows,
        columns,
        x.shape[1],
        **constants(chosen, x.shape[1], x.dtype, bias is not None, gated),
        num_warps=chosen.warps,
        num_stages=3,
    )


def tiles(rows: int, columns: int, item_bytes: int, gated: bool) -> Tiles:
    """Tensor-core tiles: large ones where they still give every multiprocessor one, with no idle last column."""
    width = 64 if gated or columns % 128 else 128  # of two results, where gated
    depth = max(16, 128 // item_bytes)  # one line of shared memory
    if triton.cdiv(rows, 128) * triton.cdiv(columns, width) >= MULTIPROCESSORS:
        return Tiles(128, width, depth, 8 if width == 128 or gated or item_bytes == 1 else 4)
    return Tiles(64, min(width, 64), depth, 4)


def constants(chosen: Tiles, depth: int, dtype: torch.dtype, has_bias: bool, gated: bool) -> dict[str, Any]:
    """The kernel's compile-time arguments."""
    return {
        "BLOCK_ROWS": chosen.rows,
        "BLOCK_COLUMNS": chosen.columns,
        "BLOCK_DEPTH": chosen.depth,
        "WHOLE_DEPTH": depth % chosen.depth == 0,
        "QUANTIZED": dtype in (torch.int8, torch.float8_e4m3fn),
        "INTEGERS": dtype == torch.int8,
        "HAS_BIAS": has_bias,
        "GATED": gated,
    }


@triton.jit
def matmul_kernel(
    x,  # [M, K]
    weight,  # [N, K], or [2 N, K]
    bias,  # [N] or [2 N], or None
    x_scale,  # [M], where QUANTIZED
    weight_scale,  # [N] or [2 N], where QUANTIZED
    out,  # [M, N]
    rows,
    columns,
    depth,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    WHOLE_DEPTH: tl.constexpr,  # K is a multiple of BLOCK_DEPTH
    QUANTIZED: tl.constexpr,
    INTEGERS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    GATED: tl.constexpr,
):
    first_row, first_column = block_of(tl.program_id(0), rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    row = first_row + tl.arange(0, BLOCK_ROWS)
    column = first_column + tl.arange(0, BLOCK_COLUMNS)
    deep = tl.arange(0, BLOCK_DEPTH)
    # beyond the edge the first row and column are read again, and not stored: no masks in the loop
    x_block = x + tl.where(row < rows, row, 0).to(tl.int64)[:, None] * depth + deep[None, :]
    w_block = weight + tl.where(column < columns, column, 0).to(tl.int64)[None, :] * depth + deep[:, None]
    g_block = w_block + columns.to(tl.int64) * depth
    kind: tl.constexpr = tl.int32 if INTEGERS else tl.float32
    result = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], kind)
    gate = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], kind)
    for start in range(0, depth, BLOCK_DEPTH):
        left = depth - start
        values = load(x_block, deep[None, :], left, WHOLE_DEPTH)
        result = product(values, load(w_block, deep[:, None], left, WHOLE_DEPTH), result, kind)
        if GATED:
            gate = product(values, load(g_block, deep[:, None], left, WHOLE_DEPTH), gate, kind)
            g_block += BLOCK_DEPTH
        x_block += BLOCK_DEPTH
        w_block += BLOCK_DEPTH

    value = finish(result, row, column, rows, columns, 0, x_scale, weight_scale, bias, QUANTIZED, HAS_BIAS)
    if GATED:
        half = finish(gate, row, column, rows, columns, columns, x_scale, weight_scale, bias, QUANTIZED, HAS_BIAS)
        value = value * gelu(half)
    place = row.to(tl.int64)[:, None] * columns + column[None, :]
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def block_of(program, rows, columns, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    """First row and column of a program's block"""
    # eight blocks of rows go through all columns together: their rows of x stay in L2
    down, across = tl.cdiv(rows, BLOCK_ROWS), tl.cdiv(columns, BLOCK_COLUMNS)
    group = program // (8 * across)
    tall = tl.minimum(down - group * 8, 8)
    first_row = (group * 8 + program % (8 * across) % tall) * BLOCK_ROWS
    return first_row, (program % (8 * across) // tall) * BLOCK_COLUMNS


@triton.jit
def load(places, deep, left, WHOLE: tl.constexpr):
    if WHOLE:
        return tl.load(places)
    return tl.load(places, mask=deep < left, other=0.0)


@triton.jit
def gelu(value):
    return 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))


@triton.jit
def product(values, weights, so_far, KIND: tl.constexpr):
    # Hopper sums 8-bit floats in some 14 bits (DeepSeek-V3, section 3.3.2): after 128 of them float32 goes on
    SUMMED: tl.constexpr = 128 if values.shape[1] > 128 else values.shape[1]
    return tl.dot(values, weights, so_far, input_precision="ieee", max_num_imprecise_acc=SUMMED, out_dtype=KIND)


@triton.jit
def finish(
    sums,
    row,
    column,
    rows,
    columns,
    first,
    x_scale,
    weight_scale,
    bias,
    QUANTIZED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """float32 values of the columns from `first` on: scaled, with their bias"""
    value = sums.to(tl.float32)
    if QUANTIZED:
        value *= tl.load(x_scale + row, mask=row < rows, other=0.0)[:, None]
        value *= tl.load(weight_scale + first + column, mask=column < columns, other=0.0)[None, :]
    if HAS_BIAS:
        value += tl.load(bias + first + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    return value
