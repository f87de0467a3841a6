"""paired_attention in Triton: the kernel of `attention.py` with two results, for the values of two rows of one map.

Lineage: flash attention (Dao et al. 2022); which rows share a map is read on the device, so that nothing waits for the
host. FLOPs of two rows with one map of N x M and head dim d: 6 N M d and N M exponentials, where plain attention has
8 N M d and 2 N M. The four rows of a pair at Stable Diffusion 1.5's first level (N = M = 4096, d = 40, 8 heads): 64
GFLOP and 0.27 G exponentials for 31 MB. k and v are read once a block of queries. Exponentials and products bind.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .attention import Tiles, launch, paired_tiles
from .fastest import fastest


def paired_attention(q: Tensor, k: Tensor, v: Tensor, source_of_row: Tensor) -> Tensor:
    """See `ip2p_fast.kernels.paired_attention`."""
    ways = {str(tiles): partial(in_tiles, tiles) for tiles in paired_tiles(max(q.shape[3], v.shape[3]))}
    return fastest("paired_attention", ways, (q, k, v, source_of_row))


def in_tiles(tiles: Tiles, q: Tensor, k: Tensor, v: Tensor, source_of_row: Tensor) -> Tensor:
    rows, heads, _, value_dim = v.shape
    out = torch.empty(rows, heads, q.shape[2], value_dim, dtype=v.dtype, device=v.device)
    launch(q, k, v, source_of_row.contiguous(), out, tiles)
    return out
