"""Attention in Triton, and the kernel that `paired_attention` shares.

Lineage: flash attention (Dao et al. 2022). A head dim is padded to a power of two, on the chip alone. Two tiles side
by side (40 = 32 + 16) were tried: no faster on an H100, and wrongly compiled by Triton 3.6 there.

The two numbers, Stable Diffusion 1.5 at 512x512, three rows, 8 heads, bfloat16. Self-attention of N tokens: 4 N^2 d
FLOPs a head. N = 4096, d = 40: 64 GFLOP (103 padded to 64), 0.4 G exponentials, 31 MB. At an H100's 989 TFLOP/s, 3.9 T
exponentials/s (16 a clock a multiprocessor) and 3.35 TB/s that is 104, 104 and 9 microseconds: products and
exponentials bind. Text cross-attention (77 keys, padded to 128): 1.2 GFLOP (3.9 padded) and 16 MB, 4 and 5
microseconds: memory binds. At d = 40 its keys and values are one block, and the loop takes one turn; at 80 and 160 a
block of 128 spills.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .fastest import fastest

_LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Tiles:
    """Queries and keys of a block, warps, and how many blocks of keys are under way at a time."""

    queries: int
    keys: int
    warps: int
    stages: int


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See `ip2p_fast.kernels.attention`: the faster of PyTorch's own choice and `flash_attention`, by measurement."""
    return fastest("attention", {"pytorch": library_attention, "triton": flash_attention}, (q, k, v))


def library_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What PyTorch chooses among its backends."""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous().transpose(1, 2)


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[R, heads, N, d], [R, heads, M, d], [R, heads, M, dv] -> [R, heads, N, dv], its memory [R, N, heads, dv]"""
    rows, heads, queries, _ = q.shape
    out = torch.empty(rows, queries, heads, v.shape[3], dtype=v.dtype, device=v.device).transpose(1, 2)
    launch(q, k, v, None, out, tiles(max(q.shape[3], v.shape[3]), k.shape[2]))
    return out


def launch(q: Tensor, k: Tensor, v: Tensor, source_of_row: Tensor | None, out: Tensor, chosen: Tiles) -> None:
    """Fills `out` [R, heads, N, dv], row r by the map of row source_of_row[r], or by its own."""
    if out.numel() == 0:
        return
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    dim, value_dim = q.shape[3], v.shape[3]
    rows, heads, queries, _ = out.shape
    keys = k.shape[2]
    strides = [stride for tensor in (q, k, v, out) for stride in tensor.stride()[:3]]
    # 8 values are one load of 16 bytes, if the kernel knows that every row of a head begins at a multiple of 8
    vector = 8 if all(stride % 8 == 0 for stride in strides) else 1
    attention_kernel[(triton.cdiv(queries, chosen.queries), heads, rows)](
        q,
        k,
        v,
        source_of_row,
        out,
        *(stride // vector for stride in strides),
        rows,
        queries,
        keys,
        dim**-0.5 * _LOG2_E,
        **constants(dim, value_dim, keys, chosen, vector, rows if source_of_row is not None else 0),
        num_warps=chosen.warps,
        num_stages=chosen.stages,
    )


def tiles(dim: int, keys: int) -> Tiles:
    """The largest blocks whose results stay in registers; few keys are one block."""
    width = channels(dim)
    if keys <= 128 and width <= 64:
        return Tiles(64, max(16, triton.next_power_of_2(keys)), 4, 1)
    return Tiles(128, 64, 8, 2) if keys > 128 and width <= 128 else Tiles(64, 32, 8, 2)


def paired_tiles(dim: int) -> list[Tiles]:
    """The same where there are two results, of which measurement finds the faster."""
    width = channels(dim)
    if width <= 64:
        return [Tiles(128, 64, 8, 3), Tiles(64, 64, 4, 3)]
    return [Tiles(64, 32, 8, 2)] if width <= 128 else [Tiles(32, 32, 8, 2)]


def channels(dim: int) -> int:
    """Of a tile that holds a head dim: a power of two, as a product's sides are."""
    return max(16, triton.next_power_of_2(dim))


def constants(dim: int, value_dim: int, keys: int, chosen: Tiles, vector: int, paired_rows: int) -> dict[str, Any]:
    """The kernel's compile-time arguments. paired_rows: 0 for rows that share nothing."""
    return {
        "DIM": dim,
        "VALUE_DIM": value_dim,
        "WIDTH": channels(max(dim, value_dim)),
        "BLOCK_QUERIES": chosen.queries,
        "BLOCK_KEYS": chosen.keys,
        "WHOLE_BLOCKS": keys % chosen.keys == 0,
        "VECTOR": vector,
        "ROWS": triton.next_power_of_2(paired_rows) if paired_rows else 0,
    }


@triton.jit
def attention_kernel(
    q,  # [S, heads, N, d], any strides but the last
    k,  # [S, heads, M, d], likewise
    v,  # [R, heads, M, dv], likewise
    source_of_row,  # [R] int64, or None where ROWS is 0
    out,  # [R, heads, N, dv], likewise
    q_map,  # strides in units of VECTOR
    q_head,
    q_token,
    k_map,
    k_head,
    k_token,
    v_row,
    v_head,
    v_token,
    out_row,
    out_head,
    out_token,
    rows,
    queries,
    keys,
    scale,  # log2(e) / sqrt(d)
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    WIDTH: tl.constexpr,  # power of two that holds DIM and VALUE_DIM
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    WHOLE_BLOCKS: tl.constexpr,  # M is a multiple of BLOCK_KEYS
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,  # rows rounded up to a power of two, or 0: every row has its own map
):
    row, head = tl.program_id(2).to(tl.int64), tl.program_id(1).to(tl.int64)
    map_ = row
    has_partner = False
    other = row
    if ROWS:
        # rows of one map go two by two: this program is of the first row of such a pair, or has nothing to do
        map_ = tl.load(source_of_row + row)
        numbers = tl.arange(0, ROWS)
        uses = tl.load(source_of_row + numbers, mask=numbers < rows, other=-1) == map_
        if tl.sum((uses & (numbers < row)).to(tl.int32), 0) % 2 == 1:
            return
        partner = tl.min(tl.where(uses & (numbers > row), numbers, rows), 0)
        has_partner = partner < rows
        # a row left over shares with itself: its second result is computed and not stored
        other = tl.where(has_partner, partner, row).to(tl.int64)

    # a block's first token is found with 64 bits, the places inside it with 32: wide offsets would spill
    first_query = tl.program_id(0).to(tl.int64) * BLOCK_QUERIES
    query = tl.arange(0, BLOCK_QUERIES)
    key = tl.arange(0, BLOCK_KEYS)
    q_block = q + (map_ * q_map + head * q_head + first_query * q_token) * VECTOR
    k_block = k + (map_ * k_map + head * k_head) * VECTOR
    v_block = v + (row * v_row + head * v_head) * VECTOR
    other_block = v + (other * v_row + head * v_head) * VECTOR

    here = queries - first_query
    queries_here = load(q_block, query, q_token * VECTOR, here, False, WIDTH, DIM)
    highest = tl.full([BLOCK_QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_QUERIES], tl.float32)
    result = tl.zeros([BLOCK_QUERIES, WIDTH], tl.float32)
    if ROWS:
        second = tl.zeros([BLOCK_QUERIES, WIDTH], tl.float32)

    turn = tl.full([], BLOCK_KEYS, tl.int64)
    for start in range(0, keys, BLOCK_KEYS):
        left = keys - start
        keys_here = load(k_block, key, k_token * VECTOR, left, WHOLE_BLOCKS, WIDTH, DIM)
        scores = tl.dot(queries_here, tl.trans(keys_here), input_precision="ieee")
        if not WHOLE_BLOCKS:
            scores = tl.where(key[None, :] < left, scores, float("-inf"))
        top = tl.maximum(highest, tl.max(scores, 1) * scale)
        kept = tl.exp2(highest - top)
        share = tl.exp2(scores * scale - top[:, None])
        total = total * kept + tl.sum(share, 1)
        highest = top
        share = share.to(v.dtype.element_ty)

        values = load(v_block, key, v_token * VECTOR, left, WHOLE_BLOCKS, WIDTH, VALUE_DIM)
        result = tl.dot(share, values, result * kept[:, None], input_precision="ieee")
        if ROWS:
            others = load(other_block, key, v_token * VECTOR, left, WHOLE_BLOCKS, WIDTH, VALUE_DIM)
            second = tl.dot(share, others, second * kept[:, None], input_precision="ieee")
            other_block += turn * v_token * VECTOR
        k_block += turn * k_token * VECTOR
        v_block += turn * v_token * VECTOR

    over = 1.0 / total[:, None]
    token = out_token * VECTOR
    block = out + (row * out_row + head * out_head + first_query * out_token) * VECTOR
    store(block, query, token, here, result * over, WIDTH, VALUE_DIM)
    if ROWS:
        block = out + (other * out_row + head * out_head + first_query * out_token) * VECTOR
        store(block, query, token, tl.where(has_partner, here, 0), second * over, WIDTH, VALUE_DIM)


@triton.jit
def load(block, token, stride, tokens, WHOLE: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr):
    """[len(token), WIDTH], zero beyond `tokens` (unless WHOLE) and DIM"""
    channel = tl.arange(0, WIDTH)
    places = block + (token[:, None] * stride + channel[None, :])
    if WHOLE and WIDTH == DIM:
        return tl.load(places)
    return tl.load(places, mask=(token[:, None] < tokens) & (channel[None, :] < DIM), other=0.0)


@triton.jit
def store(block, token, stride, tokens, values, WIDTH: tl.constexpr, DIM: tl.constexpr):
    channel = tl.arange(0, WIDTH)
    places = block + (token[:, None] * stride + channel[None, :])
    tl.store(places, values.to(block.dtype.element_ty), mask=(token[:, None] < tokens) & (channel[None, :] < DIM))
