"""layer_norm in Triton: the residual sum before it and the quantization after it in the same pass over memory.

Lineage: layer norm (Ba et al. 2016), a row in registers, its mean before its squared deviations; the quantization of a
row by its largest value is that of LLM.int8 (Dettmers et al. 2022), section 2.1.

The two numbers, Stable Diffusion 1.5 at 512x512, three rows, first level (12,288 tokens of 320, bfloat16, 7.9 MB a
tensor): 0.04 GFLOP, and 31 MB with the sum (two tensors read, two written) where a sum and a norm of their own move 39;
with int8 results 12 MB where a norm and a quantization move 28. Memory binds: 9 and 4 microseconds at 3.35 TB/s.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ip2p_fast.kernels.reference import LARGEST

_VALUES = 2048  # of a program: 16 a thread


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    quantize: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `ip2p_fast.kernels.layer_norm`."""
    x = x.contiguous()
    residual = None if residual is None else residual.contiguous()
    summed = x.new_empty(0) if residual is None else torch.empty_like(x)
    normed = torch.empty_like(x, dtype=quantize or x.dtype)
    scale = torch.empty(0 if quantize is None else x.shape[:-1], dtype=torch.float32, device=x.device)
    launch(x, residual, weight.contiguous(), bias.contiguous(), eps, summed, normed, scale, quantize)
    return normed, scale, summed


def launch(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    summed: Tensor,
    normed: Tensor,
    scale: Tensor,
    quantize: torch.dtype | None,
) -> None:
    """Fills what is asked for; without a weight, rows are quantized as they are."""
    if x.numel() == 0:
        return
    width = x.shape[-1]
    count = x.numel() // width
    size = blocks(width)
    rows_kernel[(triton.cdiv(count, size["BLOCK_ROWS"]),)](
        x,
        residual,
        weight,
        bias,
        summed,
        normed,
        scale,
        count,
        width,
        eps,
        LARGEST=0.0 if quantize is None else LARGEST[quantize],
        ROUND=quantize == torch.int8,
        NORM=weight is not None,
        HAS_RESIDUAL=residual is not None,
        **size,
        num_warps=warps(width),
    )


def blocks(width: int) -> dict[str, int]:
    """Whole rows, as many as make a program of 2,048 values."""
    block_width = triton.next_power_of_2(width)
    return {"BLOCK_ROWS": max(1, _VALUES // block_width), "BLOCK_WIDTH": block_width}


def warps(width: int) -> int:
    return max(4, min(16, triton.next_power_of_2(width) // 512))


@triton.jit
def rows_kernel(
    x,  # [rows, width]
    residual,  # [rows, width] or None
    weight,  # [width] or None
    bias,  # [width] or None
    summed,  # [rows, width], written where there is a residual
    normed,  # [rows, width]
    scale,  # [rows], written where LARGEST is not 0
    rows,
    width,
    eps,
    LARGEST: tl.constexpr,  # the magnitude that a row's largest value is brought to, or 0: not quantized
    ROUND: tl.constexpr,
    NORM: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, BLOCK_WIDTH)[None, :]
    inside = (row[:, None] < rows) & (column < width)
    place = row[:, None] * width + column
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        value += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(summed.dtype.element_ty)
        tl.store(summed + place, rounded, mask=inside)
        value = rounded.to(tl.float32)  # what the next reader of the sum sees
    if NORM:
        mean = tl.sum(value, 1) / width
        deviation = tl.where(inside, value - mean[:, None], 0.0)
        inverse = 1.0 / tl.sqrt(tl.sum(deviation * deviation, 1) / width + eps)
        gain = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
        offset = tl.load(bias + column, mask=column < width, other=0.0).to(tl.float32)
        value = deviation * inverse[:, None] * gain + offset
    if LARGEST > 0:
        largest = tl.max(tl.abs(value), 1)
        step = tl.where(largest == 0, 1.0, largest / LARGEST)
        tl.store(scale + row, step, mask=row < rows)
        value = value / step[:, None]
        if ROUND:
            value = (value + 12582912.0) - 12582912.0  # 1.5 x 2^23 leaves no bits below one: rounds half to even
    tl.store(normed + place, value.to(normed.dtype.element_ty), mask=inside)
