"""The UNet's transformers: self-attention, text cross-attention, feed-forward; and how rows share attention maps.

Rombach et al. 2022, section 3.3 (cross-attention conditioning); Hertz et al. 2022 (Prompt-to-Prompt).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import ModelError
from .kernels import attention, fuses_transformers, geglu, paired_attention
from .layers import Conv2d, GroupNorm, LayerNorm, Linear, as_linear, linear_of
from .quantized_linear import QuantizedLinear, QuantizedRows
from .unet_config import UNetConfig

# One cross-attention layer's text keys and values, each [contexts or rows, heads, tokens, head_dim].
KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SharedMaps:
    """Whose attention maps the R rows of a batch use.

    Self-attention: only the S rows `maps` have queries and keys; row r uses map `of_row[r]`. Text cross-attention:
    every row has queries, and row r is the sum of the value rows v with `text_row[v] == r`, each under the map of row
    `text_source[v]`. A change of a map by a matrix of its tokens is a change of the values, (P M) V = P (M V): no map
    is ever in memory.

    maps         [S] int64, or None for all rows
    of_row       [R] int64
    text_source  [V] int64, or None where every row reads its own text alone (V = R then)
    text_row     [V] int64
    words        [V, 77] or None: a weighting of the text's tokens, whose share of the attention at each pixel
                 `word_maps` collects, [R, N, 1] a layer of `word_tokens` pixels
    """

    of_row: Tensor
    maps: Tensor | None = None
    text_source: Tensor | None = None
    text_row: Tensor | None = None
    words: Tensor | None = None
    word_tokens: int = 0
    word_maps: list[Tensor] = field(default_factory=list)


class Transformer(nn.Module):
    """Self-attention, text cross-attention and feed-forward over the pixels of a feature map."""

    def __init__(self, config: UNetConfig, level: int, linear_projection: bool) -> None:
        super().__init__()
        width, heads = config.channels[level], config.heads[level]
        if width % heads:
            raise ModelError(f"UNet config: {width} channels do not divide into {heads} heads")
        self.proj_in = Linear(width, width) if linear_projection else Conv2d(width, width, 1)
        self.proj_out = Linear(width, width) if linear_projection else Conv2d(width, width, 1)
        self.norm = GroupNorm(config.norm_groups, width, eps=1e-6)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(width, heads, config.context_dim) for _ in range(config.transformer_depth)]
        )

    def fuse_projections(self) -> None:
        """Makes linear layers of 1x1 convolutions, whose weights differ in shape alone: tokens need no new layout."""
        self.proj_in, self.proj_out = as_linear(self.proj_in), as_linear(self.proj_out)

    def forward(self, x: Tensor, layers: Any) -> Tensor:
        rows, channels, height, width = x.shape
        residual = x.permute(0, 2, 3, 1).reshape(rows, height * width, channels)  # [R, HW, C]
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(rows, height * width, channels)
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, *next(layers))
        tokens = self.proj_out(tokens, residual)
        return tokens.view(rows, height, width, channels).permute(0, 3, 1, 2)  # [R, C, H, W], channels-last


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, context_dim: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn1 = SelfAttention(width, heads)
        self.norm2 = LayerNorm(width)
        self.attn2 = CrossAttention(width, heads, context_dim)
        self.norm3 = LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, text_keys: Tensor, text_values: Tensor, shared: SharedMaps | None) -> Tensor:
        if self.norm1.quantize is not None or (shared is None and fuses_transformers(tokens)):
            return self.with_sums_in_norms(tokens, text_keys, text_values)
        tokens = self.attn1(self.norm1(tokens), shared, residual=tokens)
        tokens = self.attn2(self.norm2(tokens), text_keys, text_values, shared, residual=tokens)
        return self.ff(self.norm3(tokens), residual=tokens)

    def with_sums_in_norms(self, tokens: Tensor, text_keys: Tensor, text_values: Tensor) -> Tensor:
        """`forward` for a GPU, where the norm that reads a sum makes it; rows share no maps."""
        rows, _ = self.norm1.of_sum(tokens)
        rows, tokens = self.norm2.of_sum(self.attn1(rows, None), tokens)
        rows, tokens = self.norm3.of_sum(self.attn2(rows, text_keys, text_values, None), tokens)
        return self.ff(rows, residual=tokens)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(width, width, bias=False)
        self.to_v = Linear(width, width, bias=False)
        self.to_out = nn.ModuleList([Linear(width, width)])

    def fuse_projections(self, values_apart: bool) -> None:
        """Puts the three projections into one matrix: one product reads the tokens once.

        values_apart: queries and keys into one, and values into another, for rows that need values alone.
        """
        if values_apart:
            self.to_qk = linear_of(torch.cat([self.to_q.weight, self.to_k.weight]), bias=None)
            del self.to_q, self.to_k
        else:
            weight = torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight])
            self.to_qkv = linear_of(weight, bias=None)
            del self.to_q, self.to_k, self.to_v

    def forward(
        self, tokens: Tensor | QuantizedRows, shared: SharedMaps | None, residual: Tensor | None = None
    ) -> Tensor:
        if shared is None:
            q, k, v = (_split_heads(part, self.heads) for part in self._projections(tokens))
            return self.to_out[0](_attend(q, k, v), residual)
        assert isinstance(tokens, Tensor)
        with_maps = tokens if shared.maps is None else tokens[shared.maps]  # [S, N, C]
        q, k = (_split_heads(part, self.heads) for part in self.to_qk(with_maps).chunk(2, dim=-1))
        v = _split_heads(self.to_v(tokens), self.heads)
        return self.to_out[0](_join_heads(paired_attention(q, k, v, shared.of_row)), residual)

    def _projections(self, tokens: Tensor | QuantizedRows) -> Sequence[Tensor]:
        if hasattr(self, "to_qkv"):
            return self.to_qkv(tokens).chunk(3, dim=-1)
        return self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)


class CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int, context_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(context_dim, width, bias=False)
        self.to_v = Linear(context_dim, width, bias=False)
        self.to_out = nn.ModuleList([Linear(width, width)])

    def keys_values(self, context: Tensor) -> KeysValues:
        """context [contexts, tokens, context_dim] -> two of [contexts, heads, tokens, head_dim]"""
        return _split_heads(self.to_k(context), self.heads), _split_heads(self.to_v(context), self.heads)

    def forward(
        self,
        tokens: Tensor | QuantizedRows,
        k: Tensor,
        v: Tensor,
        shared: SharedMaps | None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """tokens [R, N, C]; k [R, heads, 77, d]; v the same, or [V, heads, 77, d] where `shared` has text_source"""
        q = _split_heads(self.to_q(tokens), self.heads)
        if shared is None:
            return self.to_out[0](_attend(q, k, v), residual)
        if shared.words is not None and q.shape[2] == shared.word_tokens:
            words = shared.words.to(v)[:, None, :, None].expand(-1, self.heads, -1, 1)
            shared.word_maps.append(_attend_shared(q, k, words, shared).mean(1))
        return self.to_out[0](_join_heads(_attend_shared(q, k, v, shared)), residual)


class FeedForward(nn.Module):
    """GEGLU; Shazeer 2020."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), Linear(4 * width, width)])

    def forward(self, tokens: Tensor | QuantizedRows, residual: Tensor) -> Tensor:
        return self.net[2](self.net[0](tokens), residual)


class GEGLU(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, 2 * inner)

    def forward(self, tokens: Tensor | QuantizedRows) -> Tensor:
        if isinstance(self.proj, QuantizedLinear):
            return self.proj(tokens, gated=True)
        assert isinstance(tokens, Tensor)
        if fuses_transformers(tokens):
            return geglu(tokens, self.proj.weight, self.proj.bias)
        hidden, gate = self.proj(tokens).chunk(2, dim=-1)
        return hidden * F.gelu(gate)


def _split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[R, N, heads d] -> [R, heads, N, d], a view"""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[R, heads, N, d] each -> [R, N, heads d]"""
    return _join_heads(attention(q, k, v) if fuses_transformers(q) else F.scaled_dot_product_attention(q, k, v))


def _attend_shared(q: Tensor, k: Tensor, v: Tensor, shared: SharedMaps) -> Tensor:
    """q [R, heads, N, d], k [R, heads, 77, d], v [V, heads, 77, dv] -> [R, heads, N, dv]"""
    if shared.text_source is None or shared.text_row is None:
        return paired_attention(q, k, v, torch.arange(len(q), device=q.device))
    parts = paired_attention(q, k, v, shared.text_source)  # [V, heads, N, dv]
    return parts.new_zeros(len(q), *parts.shape[1:]).index_add_(0, shared.text_row, parts)


def _join_heads(x: Tensor) -> Tensor:
    """[R, heads, N, d] -> [R, N, heads d]"""
    return x.transpose(1, 2).flatten(2)
