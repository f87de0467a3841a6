"""The contract of the 8-bit operators of residual blocks as checks that every implementation goes through."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kernel_cases import ULPS, Norm, error

from ip2p_fast.kernels import reference

INT8, FP8 = torch.int8, torch.float8_e4m3fn


@dataclass(frozen=True)
class QuantizedNorm:
    """One case of quantized_group_norm_silu; of scales so small that the largest values are cut, where `cut`."""

    norm: Norm
    kind: torch.dtype
    cut: bool = False


QUANTIZED_NORMS = [
    *(QuantizedNorm(Norm((2, 20, 7, 9), 10, memory=memory), INT8) for memory in ("channels_last", "contiguous")),
    QuantizedNorm(Norm((1, 320, 9, 8), 32, torch.float16, shift=False), INT8),
    QuantizedNorm(Norm((2, 48, 17, 5), 8, memory="sliced"), INT8),
    QuantizedNorm(Norm((2, 20, 7, 9), 10), INT8, cut=True),
    QuantizedNorm(Norm((1, 16, 1, 1), 4), INT8),
    QuantizedNorm(Norm((0, 16, 4, 4), 4), INT8),
    *(QuantizedNorm(Norm((2, 64, 9, 8), 32), FP8, cut) for cut in (False, True)),
]


def check_quantized_norm(implementation, case, device="cpu"):
    x, weight, bias, groups, eps, shift, _ = case.norm.arguments(device)
    largest = reference.LARGEST[case.kind]
    scale = (torch.rand(x.shape[1], generator=torch.Generator().manual_seed(1)) + 0.5) * (0.5 if case.cut else 16.0)
    scale = (scale / largest).to(device)
    got = implementation(x, weight, bias, groups, scale, case.kind, eps, shift)
    assert got.dtype == case.kind and got.shape == x.shape
    assert got.is_contiguous(memory_format=torch.channels_last)
    if x.numel() == 0:
        return
    wide = [t if t is None else t.double() for t in (weight, bias, shift)]
    exact = reference.group_norm_silu(x.double(), wide[0], wide[1], groups, eps, wide[2])
    exact = exact / scale.double()[:, None, None]
    assert bool((exact.abs() > largest).any()) == case.cut
    exact, values = exact.clamp(-largest, largest), got.double()
    # of int8 half a step; of e4m3 half a unit of 3 bits, or half the smallest step near zero
    half = 0.5 if case.kind == INT8 else (exact.abs() / 16).clamp(min=2.0**-10)
    digits = 32 * ULPS[torch.float32] * (1 + exact.abs())
    assert bool(((values - exact).abs() <= half + digits).all()), case


@dataclass(frozen=True)
class Convolved:
    """One case of quantized_conv2d."""

    kind: torch.dtype
    shape: tuple[int, int, int, int] = (2, 40, 7, 9)
    width: int = 24
    bias: bool = True
    residual: bool = True
    dtype: torch.dtype = torch.float32

    def arguments(self, device="cpu"):
        random = torch.Generator().manual_seed(0)
        images, channels, height, width = self.shape

        def numbers(*shape):
            values = reference.LARGEST[self.kind] * torch.randn(*shape, generator=random).clamp(-3, 3) / 3
            return (values.round() if self.kind == INT8 else values).to(self.kind).to(device)

        x = numbers(*self.shape).contiguous(memory_format=torch.channels_last)
        weight = numbers(self.width, 3, 3, channels)
        scale = (torch.rand(self.width, generator=random) + 0.5) / reference.LARGEST[self.kind] ** 2
        bias = torch.randn(self.width, generator=random).to(self.dtype).to(device) if self.bias else None
        residual = torch.randn(images, self.width, height, width, generator=random).to(self.dtype)
        residual = residual.contiguous(memory_format=torch.channels_last).to(device) if self.residual else None
        return x, weight, scale.to(device), self.dtype, bias, residual


CONVOLUTIONS = [
    *(Convolved(kind) for kind in (INT8, FP8)),
    *(Convolved(kind, (1, 64, 12, 11), 130, bias=False, residual=False) for kind in (INT8, FP8)),
    Convolved(INT8, (3, 33, 5, 4), 7, residual=False),  # no whole blocks
    Convolved(INT8, (1, 128, 1, 1), 64),  # all taps but the middle one are outside
    Convolved(INT8, (2, 32, 1, 9), 16, dtype=torch.float16),
    Convolved(INT8, (0, 32, 4, 4), 16),
]


def check_quantized_conv2d(implementation, case, device="cpu"):
    x, weight, scale, dtype, bias, residual = case.arguments(device)
    sums = F.conv2d(x.double(), weight.double().permute(0, 3, 1, 2), padding=1)
    exact = sums * scale.double()[:, None, None]
    exact = exact if bias is None else exact + bias.double()[:, None, None]
    exact = exact if residual is None else exact + residual.double()
    got = implementation(x, weight, scale, dtype, bias, residual)
    assert got.dtype == dtype and got.shape == exact.shape
    assert got.is_contiguous(memory_format=torch.channels_last)
    if got.numel() == 0:
        return
    # sums of float32, those of int8 exact on a GPU; one rounding to the dtype. Hopper's fp8 sums have some 14 bits.
    digits = 10 if case.kind == FP8 and device == "cuda" else 20
    of_sums = sums.abs().max().item() * scale.max().item() * 2**-digits
    assert error(got, exact) <= of_sums + error(exact.to(dtype), exact) + ULPS[dtype], case
