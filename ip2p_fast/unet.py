"""The UNet of Stable Diffusion 1.x and 2.x and smaller ones of that family, with diffusers' parameter names.

Everything runs channels-last, so that a feature map [R, C, H, W] and its tokens [R, H W, C] are one memory. Text keys
and values do not depend on the latents: `text_keys_values` makes them once an edit, and `forward` takes them.

Ronneberger et al. 2015 (U-Net); Rombach et al. 2022, section 3.3 (cross-attention conditioning).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import ModelError
from .kernels import group_norm_silu
from .unet_config import UNetConfig

# One cross-attention layer's text keys and values, each [contexts or rows, heads, tokens, head_dim].
KeysValues = tuple[Tensor, Tensor]


class UNet(nn.Module):
    """Predicts noise (or velocity) for R rows at once; each row has its own timestep and text."""

    def __init__(self, config: UNetConfig, linear_projection: bool = False) -> None:
        super().__init__()
        self.config = config
        channels, time_dim = config.channels, 4 * config.channels[0]
        self.conv_in = Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(channels[0], time_dim)
        parts = _Parts(config, time_dim, linear_projection)

        skips = [channels[0]]
        self.down_blocks = nn.ModuleList()
        for level, width in enumerate(channels):
            last = level == len(channels) - 1
            inputs = [skips[-1]] + [width] * (config.layers_per_block - 1)
            self.down_blocks.append(Block(parts, level, inputs, down=not last))
            skips += [width] * (config.layers_per_block + (not last))

        self.mid_block = MidBlock(parts, level=len(channels) - 1)

        self.up_blocks = nn.ModuleList()
        below = channels[-1]
        for level in reversed(range(len(channels))):
            inputs = []
            for _ in range(config.layers_per_block + 1):
                inputs.append(below + skips.pop())
                below = channels[level]
            self.up_blocks.append(Block(parts, level, inputs, up=level > 0))

        self.conv_norm_out = GroupNorm(config.norm_groups, channels[0], config.norm_eps)
        self.conv_out = Conv2d(channels[0], config.out_channels, 3, padding=1)

    @classmethod
    def load(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> UNet:
        """A UNet from a diffusers config and state dict; the tensors are taken over, not copied.

        Raises ModelError naming tensors that are missing, left over or of another shape.
        """
        with torch.device("meta"):
            unet = cls(UNetConfig.from_diffusers(config), bool(config.get("use_linear_projection", False)))
        _check_tensors({name: tensor.shape for name, tensor in unet.state_dict().items()}, state)
        unet.load_state_dict(dict(state), assign=True)
        for module in unet.modules():
            if isinstance(module, (SelfAttention, Transformer)):
                module.fuse_projections()
        unet.fuse_time_projections()
        unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from PyTorch's stubs
        return unet.requires_grad_(False).eval()

    def fuse_time_projections(self) -> None:
        """Puts the time projections of all resnets, which read the same embedding, into one layer."""
        blocks = [*self.down_blocks, self.mid_block, *self.up_blocks]
        layers = [resnet.time_emb_proj for block in blocks for resnet in block.resnets]
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        self.time_projection = _linear(weight, bias)
        self.shift_widths = [layer.out_features for layer in layers]
        for block in blocks:
            for resnet in block.resnets:
                del resnet.time_emb_proj

    @property
    def dtype(self) -> torch.dtype:
        return self.conv_norm_out.weight.dtype

    def text_keys_values(self, context: Tensor) -> list[KeysValues]:
        """Keys and values of every cross-attention layer, in the order of `forward`. context [contexts, 77, D]"""
        return [layer.keys_values(context) for layer in self.modules() if isinstance(layer, CrossAttention)]

    def forward(self, latents: Tensor, timesteps: Tensor, text: Sequence[KeysValues]) -> Tensor:
        """latents [R, in_channels, h, w]; timesteps [R]; text: keys and values of R rows a layer -> [R, out, h, w]"""
        layers = iter(text)
        x = latents.to(dtype=self.dtype, memory_format=torch.channels_last)
        time = F.silu(self.time_embedding(timesteps, self.dtype))
        shifts = iter(self.time_projection(time).split(self.shift_widths, dim=1))  # [R, out] a resnet, in order
        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            x = block(x, shifts, layers, skips_out=skips)
        x = self.mid_block(x, shifts, layers)
        for block in self.up_blocks:
            x = block(x, shifts, layers, skips_in=skips)
        return self.conv_out(self.conv_norm_out(x, silu=True))


class _Parts:
    """Makes the resnets and transformers of a level, so that blocks do not hand eight sizes on to each other."""

    def __init__(self, config: UNetConfig, time_dim: int, linear_projection: bool) -> None:
        self.config, self.time_dim, self.linear_projection = config, time_dim, linear_projection

    def resnet(self, level: int, in_channels: int) -> ResnetBlock:
        config = self.config
        return ResnetBlock(in_channels, config.channels[level], self.time_dim, config.norm_groups, config.norm_eps)

    def transformer(self, level: int) -> Transformer:
        return Transformer(self.config, level, self.linear_projection)


class Block(nn.Module):
    """One level on the way down or up: resnets, each followed by a transformer where the level has them."""

    def __init__(self, parts: _Parts, level: int, inputs: Sequence[int], down: bool = False, up: bool = False) -> None:
        super().__init__()
        width = parts.config.channels[level]
        self.resnets = nn.ModuleList([parts.resnet(level, channels) for channels in inputs])
        if parts.config.attention[level]:
            self.attentions = nn.ModuleList([parts.transformer(level) for _ in inputs])
        if down:
            self.downsamplers = nn.ModuleList([Sampler(width, stride=2)])
        if up:
            self.upsamplers = nn.ModuleList([Sampler(width, stride=1)])

    def forward(
        self, x: Tensor, shifts: Any, layers: Any, skips_in: list[Tensor] | None = None, skips_out: list | None = None
    ) -> Tensor:
        attentions = getattr(self, "attentions", [None] * len(self.resnets))
        for resnet, attention in zip(self.resnets, attentions, strict=True):
            if skips_in is not None:
                x = torch.cat([x, skips_in.pop()], dim=1)
            x = resnet(x, next(shifts))
            if attention is not None:
                x = attention(x, layers)
            if skips_out is not None:
                skips_out.append(x)
        if skips_out is not None and hasattr(self, "downsamplers"):
            x = self.downsamplers[0](x)
            skips_out.append(x)
        if skips_in and hasattr(self, "upsamplers"):
            # To the skip's own size, which is not twice ours where an odd size was halved.
            x = self.upsamplers[0](F.interpolate(x, size=skips_in[-1].shape[-2:], mode="nearest"))
        return x


class MidBlock(nn.Module):
    def __init__(self, parts: _Parts, level: int) -> None:
        super().__init__()
        width = parts.config.channels[level]
        self.resnets = nn.ModuleList([parts.resnet(level, width) for _ in range(2)])
        self.attentions = nn.ModuleList([parts.transformer(level)])

    def forward(self, x: Tensor, shifts: Any, layers: Any) -> Tensor:
        x = self.resnets[0](x, next(shifts))
        x = self.attentions[0](x, layers)
        return self.resnets[1](x, next(shifts))


class Sampler(nn.Module):
    """The convolution of a down- or upsampler, under diffusers' name."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ResnetBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, time_dim: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels, eps)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = Linear(time_dim, out_channels)
        self.norm2 = GroupNorm(groups, out_channels, eps)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        """x [R, in, H, W]; shift [R, out], the projection of the time embedding -> [R, out, H, W]"""
        h = self.conv1(self.norm1(x, silu=True))
        h = self.norm2(h, silu=True, shift=shift)
        return self.conv2(h, x if self.conv_shortcut is None else self.conv_shortcut(x))


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
        self.proj_in, self.proj_out = _as_linear(self.proj_in), _as_linear(self.proj_out)

    def forward(self, x: Tensor, layers: Any) -> Tensor:
        rows, channels, height, width = x.shape
        residual = x.permute(0, 2, 3, 1).reshape(rows, height * width, channels)  # [R, HW, C]
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(rows, height * width, channels)
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, next(layers))
        tokens = self.proj_out(tokens, residual)
        return tokens.view(rows, height, width, channels).permute(0, 3, 1, 2)  # [R, C, H, W], channels-last


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, context_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = CrossAttention(width, heads, context_dim)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, text: KeysValues) -> Tensor:
        tokens = self.attn1(self.norm1(tokens), residual=tokens)
        tokens = self.attn2(self.norm2(tokens), text, residual=tokens)
        return self.ff(self.norm3(tokens), residual=tokens)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(width, width, bias=False)
        self.to_v = Linear(width, width, bias=False)
        self.to_out = nn.ModuleList([Linear(width, width)])

    def fuse_projections(self) -> None:
        """Puts the three projections into one matrix: one product reads the tokens once."""
        weight = torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight])
        self.to_qkv = _linear(weight, bias=None)
        del self.to_q, self.to_k, self.to_v

    def forward(self, tokens: Tensor, residual: Tensor) -> Tensor:
        q, k, v = (_split_heads(part, self.heads) for part in self.to_qkv(tokens).chunk(3, dim=-1))
        return self.to_out[0](_attend(q, k, v), residual)


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

    def forward(self, tokens: Tensor, text: KeysValues, residual: Tensor) -> Tensor:
        return self.to_out[0](_attend(_split_heads(self.to_q(tokens), self.heads), *text), residual)


class FeedForward(nn.Module):
    """GEGLU; Shazeer 2020."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), Linear(4 * width, width)])

    def forward(self, tokens: Tensor, residual: Tensor) -> Tensor:
        return self.net[2](self.net[0](tokens), residual)


class GEGLU(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, 2 * inner)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, gate = self.proj(tokens).chunk(2, dim=-1)
        return hidden * F.gelu(gate)


class Linear(nn.Linear):
    """A linear layer that can add a residual."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = super().forward(x)
        return y if residual is None else y + residual


class Conv2d(nn.Conv2d):
    """A convolution that can add a residual."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = super().forward(x)
        return y if residual is None else y + residual


class GroupNorm(nn.Module):
    def __init__(self, groups: int, channels: int, eps: float) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, silu: bool = False, shift: Tensor | None = None) -> Tensor:
        return group_norm_silu(x, self.weight, self.bias, self.groups, self.eps, shift=shift, silu=silu)


class TimestepEmbedding(nn.Module):
    """Sinusoids of the timestep, cosines first, then two layers; Ho et al. 2020 (DDPM), appendix B."""

    def __init__(self, width: int, time_dim: int) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = Linear(width, time_dim)
        self.linear_2 = Linear(time_dim, time_dim)

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        """timesteps [R], may be fractional -> [R, time_dim] dtype"""
        half = self.width // 2
        exponent = torch.arange(half, dtype=torch.float32, device=timesteps.device) * (-math.log(10000.0) / half)
        angles = timesteps.float()[:, None] * exponent.exp()  # [R, half]
        sinusoids = torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)
        return self.linear_2(F.silu(self.linear_1(sinusoids)))


def _linear(weight: Tensor, bias: Tensor | None) -> Linear:
    layer = Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def _as_linear(layer: Linear | Conv2d) -> Linear:
    return layer if isinstance(layer, Linear) else _linear(layer.weight.detach().flatten(1), layer.bias)


def _split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[R, N, heads d] -> [R, heads, N, d], a view"""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[R, heads, N, d] each -> [R, N, heads d]"""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _check_tensors(expected: Mapping[str, Sequence[int]], state: Mapping[str, Tensor]) -> None:
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    shapes = [
        f"{name} is {tuple(state[name].shape)}, must be {tuple(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != tuple(shape)
    ]
    faults = [
        f"{len(names)} tensors {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for what, names in (("missing", missing), ("not expected", extra), ("misshapen", shapes))
        if names
    ]
    if faults:
        raise ModelError(f"the UNet's weights do not fit its config; {'; '.join(faults)}")
