"""The layers that the UNet is made of, under diffusers' parameter names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kernels import group_norm_silu, layer_norm
from .quantized_linear import QuantizedRows


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
        """x [N, C, H, W], or [N, C, tokens] as the autoencoder's attention has it"""
        if x.dim() == 3:
            return self.forward(x[..., None], silu, shift)[..., 0]
        return group_norm_silu(x, self.weight, self.bias, self.groups, self.eps, shift=shift, silu=silu)


class LayerNorm(nn.LayerNorm):
    """quantize: the 8-bit dtype in which the next layer reads the rows, or None."""

    quantize: torch.dtype | None = None

    def of_sum(self, x: Tensor, residual: Tensor | None = None) -> tuple[Tensor | QuantizedRows, Tensor]:
        """x, residual [R, N, C] -> the norm of their sum, and the sum, by our kernel."""
        normed, scale, summed = layer_norm(x, self.weight, self.bias, self.eps, residual, self.quantize)
        rows = normed if self.quantize is None else QuantizedRows(normed, scale)
        return rows, x if residual is None else summed


def replace_group_norms(module: nn.Module) -> None:
    """Puts our group norms in the place of PyTorch's, whose bits depend on the number of threads on a CPU."""
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            ours = GroupNorm(child.num_groups, child.num_channels, child.eps)
            ours.weight, ours.bias = child.weight, child.bias
            setattr(module, name, ours)
        else:
            replace_group_norms(child)


class TimestepEmbedding(nn.Module):
    """Sinusoids of the timestep, cosines first, then two layers; Ho et al. 2020 (DDPM), appendix B.

    guidance_dim: width of the guidance scales' embedding, whose projection is added to the sinusoids; Meng et al. 2023.
    """

    def __init__(self, width: int, time_dim: int, guidance_dim: int | None = None) -> None:
        super().__init__()
        self.width, self.guidance_dim = width, guidance_dim
        if guidance_dim is not None:
            self.cond_proj = Linear(guidance_dim, width, bias=False)
        self.linear_1 = Linear(width, time_dim)
        self.linear_2 = Linear(time_dim, time_dim)

    def forward(self, timesteps: Tensor, dtype: torch.dtype, scales: Tensor | None = None) -> Tensor:
        """timesteps [R], may be fractional; scales [R, 2] where there is a guidance_dim -> [R, time_dim] dtype"""
        half = self.width // 2
        exponent = torch.arange(half, dtype=torch.float32, device=timesteps.device) * (-math.log(10000.0) / half)
        angles = timesteps.float()[:, None] * exponent.exp()  # [R, half]
        sinusoids = torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)
        if self.guidance_dim is not None:
            assert scales is not None
            sinusoids = sinusoids + self.cond_proj(embed_scales(scales, self.guidance_dim).to(dtype))
        return self.linear_2(F.silu(self.linear_1(sinusoids)))


def embed_scales(scales: Tensor, width: int) -> Tensor:
    """Sinusoids of two guidance scales, of each as of the one in latent consistency models (Luo et al. 2023).

    scales [R, 2] -> [R, width] float32: sines and cosines of s_T, then those of s_I
    """
    quarter = width // 4
    frequencies = torch.exp(torch.arange(quarter, device=scales.device) * (-math.log(10000.0) / (quarter - 1)))
    angles = 1000.0 * scales.float()[:, :, None] * frequencies  # [R, 2, width / 4]
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


def linear_of(weight: Tensor, bias: Tensor | None) -> Linear:
    layer = Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def as_linear(layer: Linear | Conv2d) -> Linear:
    return layer if isinstance(layer, Linear) else linear_of(layer.weight.detach().flatten(1), layer.bias)
