"""quantized_linear in Triton: 8-bit operands, a scale a row of x and a scale a row of the weight, both after the sum.

Lineage: LLM.int8 (Dettmers et al. 2022), section 2.1, without outliers apart: a UNet's tokens come from norms.

The two numbers, Stable Diffusion 1.5 at 512x512, three rows, first level (12,288 tokens, 320 -> 960): 7.5 GFLOP, and
4 + 0.3 + 24 MB of x, weight and bfloat16 result. 4 microseconds at 1,979 TFLOP/s (int8 and fp8 alike), 8 at 3.35 TB/s:
memory binds there, and 8 bits save 4 MB of 32. At 1,280 channels (768 tokens, 5,120 -> 1,280) 10 GFLOP and 12 MB, 5 and
4 microseconds: products bind, and 8 bits halve their time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .fastest import fastest
from .geglu import gate
from .matmul import launch


def quantized_linear(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    gated: bool = False,
) -> Tensor:
    """See `ip2p_fast.kernels.quantized_linear`. Of fp8 the faster of two ways, by measurement."""
    arguments = (x, x_scale, weight, weight_scale, bias, dtype, gated)
    if x.dtype == torch.int8:  # PyTorch's product of these leaves the sums to a pass of their own
        return fused(*arguments)
    return fastest("quantized_linear", {"triton": fused, "pytorch": by_library}, arguments)


def fused(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    gated: bool = False,
) -> Tensor:
    """The contract in one kernel."""
    width = len(weight) // 2 if gated else len(weight)
    out = torch.empty(*x.shape[:-1], width, dtype=dtype, device=x.device)
    launch(
        x.reshape(-1, x.shape[-1]), weight, bias, out.view(-1, width), x_scale.reshape(-1), weight_scale, gated=gated
    )
    return out


def by_library(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    gated: bool = False,
) -> Tensor:
    """The same of fp8 by PyTorch's scaled product, and a gate after it; of some shapes and dtypes alone."""
    sums = torch._scaled_mm(
        x.reshape(-1, x.shape[-1]),
        weight.t(),
        scale_a=x_scale.reshape(-1, 1),
        scale_b=weight_scale.view(1, -1),
        bias=bias,
        out_dtype=dtype,
    )
    both = sums.view(*x.shape[:-1], len(weight))
    return gate(both) if gated else both
