"""quantized_conv2d in Triton: a matrix product whose rows are pixels and whose depth is nine taps of all channels.

Lineage: the implicit GEMM of cuDNN (Chetlur et al. 2014) and of CUTLASS's `conv2dfprop`; blocks as in `matmul.py`. The
nine taps are one loop, so that loads run ahead across taps. Outside the picture a load gives zeros and reads nothing.

The two numbers, Stable Diffusion 1.5 at 512x512, three rows, first level (12,288 pixels, 320 -> 320): 23 GFLOP, and 4 +
0.9 + 8 MB of x, weight and bfloat16 result, 8 MB more with a residual. 11 microseconds at 1,979 TFLOP/s (int8 and fp8
alike), 6 at 3.35 TB/s: products bind. At the last (192 pixels, 2,560 -> 1,280) 11 GFLOP and 30 MB, nearly all weights:
6 and 9 microseconds, so memory binds, and 8 bits halve it. Bias and residual, which a library's convolution leaves to
passes of their own, are added to the sums.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .matmul import MULTIPROCESSORS, Tiles, block_of, product
from .matmul import tiles as product_tiles


def quantized_conv2d(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """See `ip2p_fast.kernels.quantized_conv2d`."""
    images, channels, height, width = x.shape
    columns, pixels = len(weight), images * height * width
    shape = (images, columns, height, width)
    out = torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)
    if out.numel() == 0:
        return out
    chosen = tiles(pixels, columns, channels)
    grid = (triton.cdiv(pixels, chosen.rows) * triton.cdiv(columns, chosen.columns),)
    conv_kernel[grid](
        x.contiguous(memory_format=torch.channels_last),
        weight.contiguous(),
        scale.contiguous(),
        None if bias is None else bias.contiguous(),
        None if residual is None else residual.contiguous(memory_format=torch.channels_last),
        out,
        pixels,
        columns,
        channels,
        height,
        width,
        **constants(chosen, channels, x.dtype, bias is not None, residual is not None),
        num_warps=chosen.warps,
        num_stages=3,
    )
    return out


def tiles(pixels: int, columns: int, channels: int) -> Tiles:
    """Those of a product, narrower where too few pixels would leave multiprocessors idle, and of whole taps."""
    chosen = product_tiles(pixels, columns, 1, gated=False)
    if triton.cdiv(pixels, chosen.rows) * triton.cdiv(columns, chosen.columns) < MULTIPROCESSORS:
        chosen = replace(chosen, columns=32)
    return replace(chosen, depth=next((depth for depth in (128, 64) if channels % depth == 0), 32))


def constants(chosen: Tiles, channels: int, dtype: torch.dtype, has_bias: bool, has_residual: bool) -> dict[str, Any]:
    """The kernel's compile-time arguments."""
    return {
        "BLOCK_PIXELS": chosen.rows,
        "BLOCK_COLUMNS": chosen.columns,
        "BLOCK_DEPTH": chosen.depth,
        "WHOLE_DEPTH": channels % chosen.depth == 0,
        "INTEGERS": dtype == torch.int8,
        "HAS_BIAS": has_bias,
        "HAS_RESIDUAL": has_residual,
    }


@triton.jit
def conv_kernel(
    x,  # [N, H, W, C]
    weight,  # [O, 3, 3, C]
    scale,  # [O]
    bias,  # [O] or None
    residual,  # [N, H, W, O] or None
    out,  # [N, H, W, O]
    pixels,  # N H W
    columns,  # O
    channels,  # C
    height,
    width,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    WHOLE_DEPTH: tl.constexpr,  # C is a multiple of BLOCK_DEPTH
    INTEGERS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
):
    first_pixel, first_column = block_of(tl.program_id(0), pixels, columns, BLOCK_PIXELS, BLOCK_COLUMNS)
    pixel = first_pixel + tl.arange(0, BLOCK_PIXELS)
    column = first_column + tl.arange(0, BLOCK_COLUMNS)
    deep = tl.arange(0, BLOCK_DEPTH)
    down, across = pixel // width % height, pixel % width
    # beyond the last column the first is read again, and not stored
    w_block = weight + tl.where(column < columns, column, 0).to(tl.int64)[None, :] * 9 * channels + deep[:, None]
    kind: tl.constexpr = tl.int32 if INTEGERS else tl.float32
    sums = tl.zeros([BLOCK_PIXELS, BLOCK_COLUMNS], kind)
    blocks = tl.cdiv(channels, BLOCK_DEPTH)
    for turn in range(0, 9 * blocks):
        tap, start = turn // blocks, turn % blocks * BLOCK_DEPTH
        by_rows, by_columns = tap // 3 - 1, tap % 3 - 1
        read = (pixel < pixels) & (down + by_rows >= 0) & (down + by_rows < height)
        read = read & (across + by_columns >= 0) & (across + by_columns < width)
        source = (pixel + by_rows * width + by_columns).to(tl.int64) * channels
        if WHOLE_DEPTH:
            values = tl.load(x + source[:, None] + start + deep[None, :], mask=read[:, None], other=0.0)
            weights = tl.load(w_block + tap * channels + start)
        else:
            left = channels - start
            inside = read[:, None] & (deep[None, :] < left)
            values = tl.load(x + source[:, None] + start + deep[None, :], mask=inside, other=0.0)
            weights = tl.load(w_block + tap * channels + start, mask=deep[:, None] < left, other=0.0)
        sums = product(values, weights, sums, kind)

    here = column < columns
    value = sums.to(tl.float32) * tl.load(scale + column, mask=here, other=0.0)[None, :]
    if HAS_BIAS:
        value += tl.load(bias + column, mask=here, other=0.0).to(tl.float32)[None, :]
    place = pixel.to(tl.int64)[:, None] * columns + column[None, :]
    inside = (pixel[:, None] < pixels) & here[None, :]
    if HAS_RESIDUAL:
        value += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)
