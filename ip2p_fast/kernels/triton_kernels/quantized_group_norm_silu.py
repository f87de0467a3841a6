"""quantized_group_norm_silu in Triton: `group_norm_silu.py`, whose last launch stores 8 bits.

The two numbers: those of the norm, with 1 byte a value written in place of 2. The scales are the weights' own, not the
picture's (`quantized_conv.py`), so there is no pass that looks for the largest value.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .group_norm_silu import launch


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
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)
    launch(x, weight, bias, groups, eps, shift, True, y, scale)
    return y
