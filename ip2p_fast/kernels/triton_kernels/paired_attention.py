"""paired_attention in Triton.

Lineage: flash attention (Dao et al. 2022) with the values of two rows that share a map; which do is read on the
device, so that nothing waits for the host. FLOPs a pair of rows with a map of N x M and head dim d: 6 N M d and N M
exponentials, where plain attention has 8 N M d and 2 N M. k and v are read once a block of queries.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WARPS = 8


def paired_attention(q: Tensor, k: Tensor, v: Tensor, source_of_row: Tensor) -> Tensor:
    """See `ip2p_fast.kernels.paired_attention`."""
    maps, heads, queries, dim = q.shape
    rows, _, keys, value_dim = v.shape
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    out = torch.empty(rows, heads, queries, value_dim, dtype=v.dtype, device=v.device)
    if out.numel() == 0:
        return out
    widest = max(16, triton.next_power_of_2(max(dim, value_dim)))
    block_queries, block_keys = blocks(widest)
    paired_attention_kernel[(triton.cdiv(queries, block_queries), heads, rows)](
        q,
        k,
        v,
        source_of_row.contiguous(),
        out,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        rows,
        heads,
        queries,
        keys,
        dim,
        value_dim,
        dim**-0.5,
        ROWS=triton.next_power_of_2(rows),
        WIDTH=widest,
        BLOCK_QUERIES=block_queries,
        BLOCK_KEYS=block_keys,
        num_warps=WARPS,
    )
    return out


def blocks(width: int) -> tuple[int, int]:
    """Queries and keys of a block: the largest whose two results of that width stay in registers."""
    return (128, 64) if width <= 64 else (64, 32) if width == 128 else (32, 16)


@triton.jit
def paired_attention_kernel(
    q,  # [S, heads, N, d], any strides but the last
    k,  # [S, heads, M, d], likewise
    v,  # [R, heads, M, dv], likewise
    source_of_row,  # [R] int64
    out,  # [R, heads, N, dv], contiguous
    q_map,
    q_head,
    q_token,
    k_map,
    k_head,
    k_token,
    v_row,
    v_head,
    v_token,
    rows,
    heads,
    queries,
    keys,
    dim,
    value_dim,
    scale,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,  # power of two that holds d and dv
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    # rows of one map go two by two: this program is of the first row of such a pair, or has nothing to do
    row, head = tl.program_id(2), tl.program_id(1).to(tl.int64)
    map_ = tl.load(source_of_row + row)
    row_numbers = tl.arange(0, ROWS)
    uses = tl.load(source_of_row + row_numbers, mask=row_numbers < rows, other=-1) == map_
    if tl.sum((uses & (row_numbers < row)).to(tl.int32), 0) % 2 == 1:
        return
    partner = tl.min(tl.where(uses & (row_numbers > row), row_numbers, rows), 0)
    has_partner = partner < rows
    one = row.to(tl.int64)
    # a row left over shares with itself: its second result is computed and not stored
    other = tl.where(has_partner, partner, row).to(tl.int64)

    # a block's first token is found with 64 bits, the places inside it with 32: wide offsets would spill
    first_query = tl.program_id(0).to(tl.int64) * BLOCK_QUERIES
    query = tl.arange(0, BLOCK_QUERIES)
    key = tl.arange(0, BLOCK_KEYS)
    channel = tl.arange(0, WIDTH)
    query_is_there = query[:, None] < queries - first_query
    q_block = tl.load(
        q + map_ * q_map + head * q_head + first_query * q_token + (query[:, None] * q_token + channel[None, :]),
        mask=query_is_there & (channel[None, :] < dim),
        other=0.0,
    )
    k_places = channel[:, None] + key[None, :] * k_token
    v_places = key[:, None] * v_token + channel[None, :]

    k_block = k + map_ * k_map + head * k_head
    v_one = v + one * v_row + head * v_head
    v_other = v + other * v_row + head * v_head

    highest = tl.full([BLOCK_QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_QUERIES], tl.float32)
    sum_one = tl.zeros([BLOCK_QUERIES, WIDTH], tl.float32)
    sum_other = tl.zeros([BLOCK_QUERIES, WIDTH], tl.float32)
    for start in range(0, keys, BLOCK_KEYS):
        left = keys - start
        keys_here = tl.load(k_block + k_places, mask=(key[None, :] < left) & (channel[:, None] < dim), other=0.0)
        scores = tl.dot(q_block, keys_here, input_precision="ieee") * scale
        scores = tl.where(key[None, :] < left, scores, float("-inf"))
        top = tl.maximum(highest, tl.max(scores, 1))
        kept = tl.exp(highest - top)
        share = tl.exp(scores - top[:, None])
        total = total * kept + tl.sum(share, 1)
        highest = top

        there = (key[:, None] < left) & (channel[None, :] < value_dim)
        share = share.to(v.dtype.element_ty)
        sum_one = sum_one * kept[:, None]
        sum_one = tl.dot(share, tl.load(v_one + v_places, mask=there, other=0.0), sum_one, input_precision="ieee")
        sum_other = sum_other * kept[:, None]
        values = tl.load(v_other + v_places, mask=there, other=0.0)
        sum_other = tl.dot(share, values, sum_other, input_precision="ieee")
        k_block += BLOCK_KEYS * k_token.to(tl.int64)
        v_one += BLOCK_KEYS * v_token.to(tl.int64)
        v_other += BLOCK_KEYS * v_token.to(tl.int64)

    wanted = query_is_there & (channel[None, :] < value_dim)
    places = query[:, None] * value_dim + channel[None, :]
    out_one = out + ((one * heads + head) * queries + first_query) * value_dim
    out_other = out + ((other * heads + head) * queries + first_query) * value_dim
    tl.store(out_one + places, (sum_one / total[:, None]).to(out.dtype.element_ty), mask=wanted)
    wanted = wanted & has_partner
    tl.store(out_other + places, (sum_other / total[:, None]).to(out.dtype.element_ty), mask=wanted)
