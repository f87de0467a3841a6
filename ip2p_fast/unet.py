"""The UNet of Stable Diffusion 1.x and 2.x and smaller ones of that family, with diffusers' parameter names.

Everything runs channels-last, so that a feature map [R, C, H, W] and its tokens [R, H W, C] are one memory. Text keys
and values do not depend on the latents: `text_keys_values` makes them once an edit, and `forward` takes them. Rows can
use each other's attention maps (`transformer.SharedMaps`), which is how Prompt-to-Prompt edits.

Ronneberger et al. 2015 (U-Net); Rombach et al. 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import ModelError
from .layers import Conv2d, GroupNorm, Linear, TimestepEmbedding, linear_of
from .transformer import CrossAttention, KeysValues, SelfAttention, SharedMaps, Transformer
from .unet_config import UNetConfig


class UNet(nn.Module):
    """Predicts noise (or velocity) for R rows at once; each row has its own timestep and text."""

    def __init__(self, config: UNetConfig, linear_projection: bool = False) -> None:
        super().__init__()
        self.config = config
        channels, time_dim = config.channels, 4 * config.channels[0]
        self.conv_in = Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(channels[0], time_dim, config.guidance_dim)
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
    def load(
        cls, config: Mapping[str, Any], state: Mapping[str, Tensor], shares_maps: bool = False, fuse: bool = True
    ) -> UNet:
        """A UNet from a diffusers config and state dict; the tensors are taken over, not copied.

        shares_maps: `forward` will be given `SharedMaps`, and must be; otherwise it must not.
        fuse: put layers that read the same input into one, and biases together that are added to the same results; an
            exported graph keeps the checkpoint's own tensors.

        Raises ModelError naming tensors that are missing, left over or of another shape.
        """
        with torch.device("meta"):
            unet = cls(UNetConfig.from_diffusers(config), bool(config.get("use_linear_projection", False)))
        _check_tensors({name: tensor.shape for name, tensor in unet.state_dict().items()}, state)
        unet.load_state_dict(dict(state), assign=True)
        for module in unet.modules():
            if isinstance(module, SelfAttention) and fuse:
                module.fuse_projections(values_apart=shares_maps)
            elif isinstance(module, Transformer):
                module.fuse_projections()
            elif isinstance(module, ResnetBlock) and fuse:
                module.fuse_biases()
        if fuse:
            unet.fuse_time_projections()
        unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from PyTorch's stubs
        return unet.requires_grad_(False).eval()

    def fuse_time_projections(self) -> None:
        """Puts the time projections of all resnets, which read the same embedding, into one layer."""
        layers = [resnet.time_emb_proj for resnet in self._resnets()]
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        self.time_projection = linear_of(weight, bias)
        self.shift_widths = [layer.out_features for layer in layers]
        for resnet in self._resnets():
            del resnet.time_emb_proj

    @property
    def dtype(self) -> torch.dtype:
        return self.conv_norm_out.weight.dtype

    def text_keys_values(self, context: Tensor) -> list[KeysValues]:
        """Keys and values of every cross-attention layer, in the order of `forward`. context [contexts, 77, D]"""
        return [layer.keys_values(context) for layer in self.modules() if isinstance(layer, CrossAttention)]

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Sequence[KeysValues],
        shared: SharedMaps | None = None,
        scales: Tensor | None = None,
    ) -> Tensor:
        """latents [R, in_channels, h, w]; timesteps [R]; text: keys and values of R rows a layer -> [R, out, h, w]

        scales [R, 2]: what a distilled UNet is guided by; others leave them unread.
        """
        return self.with_deep(latents, timesteps, text, shared, scales)[0]

    def with_deep(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Sequence[KeysValues],
        shared: SharedMaps | None = None,
        scales: Tensor | None = None,
        deep: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The prediction of `forward`, and the deep features: all that the first level gets from those below it.

        deep [R, C, h, w]: such features of an earlier step, in whose place nothing below the first level is evaluated
        (Ma et al. 2024, section 3.2, with the cut at the outermost skip connections). C is the width of the second
        level, of the first where there is one alone.
        """
        down: list[Any] = list(self.down_blocks)
        up: list[Any] = list(self.up_blocks)
        x = latents.to(dtype=self.dtype, memory_format=torch.channels_last)
        all_shifts = self._shifts(F.silu(self.time_embedding(timesteps, self.dtype, scales)))
        all_layers = [(*keys_values, shared) for keys_values in text]
        if deep is not None:
            all_shifts = _of_ends(all_shifts, len(down[0].resnets), len(up[-1].resnets))
            all_layers = _of_ends(all_layers, _cross_attentions(down[0]), _cross_attentions(up[-1]))
        shifts, layers = iter(all_shifts), iter(all_layers)
        x = self.conv_in(x)
        skips = [x]
        x = down[0](x, shifts, layers, skips_out=skips, resample=deep is None)
        if deep is None:
            for block in down[1:]:
                x = block(x, shifts, layers, skips_out=skips)
            deep = self.mid_block(x, shifts, layers)
            for block in up[:-1]:
                deep = block(deep, shifts, layers, skips_in=skips)
        x = up[-1](deep, shifts, layers, skips_in=skips)
        return self.conv_out(self.conv_norm_out(x, silu=True)), deep

    def _shifts(self, time: Tensor) -> Sequence[Tensor]:
        """The projection of the time embedding of every resnet in order, [R, out] each"""
        if hasattr(self, "time_projection"):
            return self.time_projection(time).split(self.shift_widths, dim=1)
        return [resnet.time_emb_proj(time) for resnet in self._resnets()]

    def _resnets(self) -> list[Any]:
        blocks = [*self.down_blocks, self.mid_block, *self.up_blocks]
        return [resnet for block in blocks for resnet in block.resnets]


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
        self,
        x: Tensor,
        shifts: Any,
        layers: Any,
        skips_in: list[Tensor] | None = None,
        skips_out: list | None = None,
        resample: bool = True,
    ) -> Tensor:
        """resample: False leaves the downsampler out, whose output the level below is not there to read"""
        attentions = getattr(self, "attentions", [None] * len(self.resnets))
        for resnet, attention in zip(self.resnets, attentions, strict=True):
            if skips_in is not None:
                x = torch.cat([x, skips_in.pop()], dim=1)
            x = resnet(x, next(shifts))
            if attention is not None:
                x = attention(x, layers)
            if skips_out is not None:
                skips_out.append(x)
        if skips_out is not None and resample and hasattr(self, "downsamplers"):
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

    def fuse_biases(self) -> None:
        """Moves biases into those of layers whose results are added: on a GPU a convolution's is a pass of its own."""
        _move_bias(self.conv1, self.time_emb_proj)
        if self.conv_shortcut is not None:
            _move_bias(self.conv2, self.conv_shortcut)

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        """x [R, in, H, W]; shift [R, out], the projection of the time embedding -> [R, out, H, W]"""
        h = self.conv1(self.norm1(x, silu=True))
        h = self.norm2(h, silu=True, shift=shift)
        return self.conv2(h, x if self.conv_shortcut is None else self.conv_shortcut(x))


def _move_bias(layer: Conv2d, to: Linear | Conv2d) -> None:
    assert layer.bias is not None and to.bias is not None
    to.bias = nn.Parameter((to.bias + layer.bias).detach(), requires_grad=False)
    layer.bias = None


def _of_ends(items: Sequence[Any], first: int, last: int) -> list[Any]:
    """The first few and the last few of what layers read in order: those of the outermost blocks."""
    return [*items[:first], *items[len(items) - last :]]


def _cross_attentions(block: nn.Module) -> int:
    return sum(isinstance(module, CrossAttention) for module in block.modules())


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
