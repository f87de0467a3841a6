"""geglu in Triton: a product whose result is gated before it is stored, or a library's product and a gate of its own.

Lineage: GEGLU (Shazeer 2020), fused into the product as CUTLASS's dual GEMM does.

The two numbers, Stable Diffusion 1.5 at 512x512, three rows, bfloat16: 20 GFLOP at every level, 20 microseconds at
989 TFLOP/s. First level (12,288 tokens, 320 -> 2 x 1,280): fused 41 MB, 12 microseconds at 3.35 TB/s; a product and a
gate 167 MB, 50 microseconds; eager PyTorch, whose gelu and product are passes of their own, 230 MB. The fusion saves
4 / K bytes a multiplication: 38 microseconds at K = 320, nearly two products; 9 at 1,280, half of one, and less where
L2 holds the result, which our product may lose to a library's. So both are here, and measurement finds the faster one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .fastest import fastest
from .matmul import gelu, launch

BLOCK = 1024


def geglu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `ip2p_fast.kernels.geglu`."""
    return fastest("geglu", {"library": product_and_gate, "triton": fused}, (x, weight, bias))


def fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [..., K], weight [2 N, K], bias [2 N] -> [..., N] in one kernel"""
    out = torch.empty(*x.shape[:-1], len(weight) // 2, dtype=x.dtype, device=x.device)
    launch(x.reshape(-1, x.shape[-1]), weight, bias, out.view(-1, out.shape[-1]), gated=True)
    return out


def product_and_gate(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same in two: cuBLAS's product, then one pass over it."""
    return gate(F.linear(x, weight, bias))


def gate(both: Tensor) -> Tensor:
    """[..., 2 N], values then gates -> [..., N]"""
    out = torch.empty(*both.shape[:-1], both.shape[-1] // 2, dtype=both.dtype, device=both.device)
    if out.numel():
        grid = (triton.cdiv(out.numel(), BLOCK),)
        gate_kernel[grid](both, out, out.numel(), out.shape[-1], BLOCK=BLOCK)
    return out


@triton.jit
def gate_kernel(
    both,  # [M, 2 N]: values, then gates
    out,  # [M, N]
    count,  # M x N
    width,  # N
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    source = place // width * (2 * width) + place % width
    value = tl.load(both + source, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(both + source + width, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, (value * gelu(gate)).to(out.dtype.element_ty), mask=inside)
