"""guided_step in Triton.

Lineage: the CPU kernel's pass, one program for a block of one edit's latents. The two numbers, per latent value with R
rows an edit: 2 R + 12 FLOPs; sizeof(eps) R + 16 bytes read and 12 written, each once, and rows, d2 and noise not where
their coefficient is zero. One edit of three rows at 512x512 in bfloat16: 0.3 MFLOP and 0.56 MB, 0.2 microseconds at
3.35 TB/s, so a launch binds; 16 edits 9 MB, 2.7 microseconds: memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


def guided_step(
    eps: Tensor, row_start: Tensor, weights: Tensor, x: Tensor, history: Tensor, coefficients: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """See `ip2p_fast.kernels.guided_step`."""
    edits, channels, height, width = x.shape
    if height > 1 and eps.stride(2) != width * eps.stride(3):
        eps = eps.contiguous()  # the kernel walks a row's pixels with one stride
    x_next = torch.empty_like(x, memory_format=torch.contiguous_format)
    history_next = torch.empty_like(history, memory_format=torch.contiguous_format)
    size = channels * height * width
    guided_step_kernel[(triton.cdiv(size, BLOCK), edits)](
        eps,
        row_start.contiguous(),
        weights.contiguous(),
        x.contiguous(),
        history.contiguous(),
        coefficients.contiguous(),
        noise.contiguous(),
        x_next,
        history_next,
        eps.shape[0],
        height * width,
        size,
        eps.stride(0),
        eps.stride(1),
        eps.stride(3),
        BLOCK=BLOCK,
    )
    return x_next, history_next


@triton.jit
def guided_step_kernel(
    eps,  # [R, C, pixels], any strides
    row_start,  # [E + 1] int64
    weights,  # [R]
    x,  # [E, C, pixels]
    history,  # [E, 2, C, pixels]
    coefficients,  # [E, 7]
    noise,  # [E, C, pixels]
    x_next,  # [E, C, pixels]
    history_next,  # [E, 2, C, pixels]
    rows,
    pixels,
    size,  # C x pixels
    row_stride,
    channel_stride,
    pixel_stride,
    BLOCK: tl.constexpr,
):
    edit = tl.program_id(1).to(tl.int64)
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # in one edit's latents
    inside = offset < size
    where_in_row = (offset // pixels).to(tl.int64) * channel_stride + (offset % pixels).to(tl.int64) * pixel_stride

    k = coefficients + edit * 7
    a, b0, b1, b2 = tl.load(k), tl.load(k + 1), tl.load(k + 2), tl.load(k + 3)
    c, p, q = tl.load(k + 4), tl.load(k + 5), tl.load(k + 6)

    guided = tl.zeros([BLOCK], tl.float32)
    # clamped: row_start lives on the device, unchecked by the host
    first = tl.maximum(tl.load(row_start + edit), 0)
    last = tl.minimum(tl.load(row_start + edit + 1), tl.where(q != 0, rows, 0))
    for row in range(first, last):
        weight = tl.load(weights + row)
        if weight != 0:
            guided += weight * tl.load(eps + row * row_stride + where_in_row, mask=inside, other=0.0).to(tl.float32)

    # 0 x NaN is NaN, so a term whose coefficient is exactly zero is left out: b2 and c by reading none of their operand
    latents = tl.load(x + edit * size + offset, mask=inside, other=0.0)
    d1 = tl.load(history + edit * 2 * size + offset, mask=inside, other=0.0)
    d2 = tl.load(history + (edit * 2 + 1) * size + offset, mask=offset < tl.where(b2 != 0, size, 0), other=0.0)
    n = tl.load(noise + edit * size + offset, mask=offset < tl.where(c != 0, size, 0), other=0.0)

    clean = tl.where(p != 0, p * latents, 0.0) + q * guided
    stepped = tl.where(a != 0, a * latents, 0.0) + tl.where(b0 != 0, b0 * clean, 0.0)
    stepped += tl.where(b1 != 0, b1 * d1, 0.0) + b2 * d2 + c * n
    tl.store(x_next + edit * size + offset, stepped, mask=inside)
    tl.store(history_next + edit * 2 * size + offset, clean, mask=inside)
    tl.store(history_next + (edit * 2 + 1) * size + offset, d1, mask=inside)
