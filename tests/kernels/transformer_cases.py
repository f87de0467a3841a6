"""The contract of the transformers' operators as checks that every implementation goes through, as kernel_cases.py."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kernel_cases import DTYPES, ULPS, error

from ip2p_fast.kernels import reference

INT8, FP8 = torch.int8, torch.float8_e4m3fn


@dataclass(frozen=True)
class Attention:
    """One case of attention; heads are split off a wider tensor unless contiguous."""

    dim: int
    queries: int
    keys: int
    dtype: torch.dtype = torch.float32
    value_dim: int | None = None
    contiguous: bool = False
    scale: float = 1.0

    def arguments(self, device="cpu", rows=2, heads=3):
        random = torch.Generator().manual_seed(0)

        def tokens(count, dim, scale=1.0):
            x = scale * torch.randn(rows, count, heads, dim, generator=random)
            x = x.to(self.dtype).transpose(1, 2)
            return (x.contiguous() if self.contiguous else x).to(device)

        value_dim = self.value_dim or self.dim
        q, k = tokens(self.queries, self.dim, self.scale), tokens(self.keys, self.dim, self.scale)
        return q, k, tokens(self.keys, value_dim)


ATTENTIONS = [
    *(Attention(40, 70, 77, dtype) for dtype in DTYPES),  # text, one block of keys
    *(Attention(dim, 130, 192) for dim in (40, 80)),  # whole blocks of keys
    Attention(160, 33, 130),  # and a part of one
    Attention(160, 5, 77, contiguous=True),  # text in three blocks
    Attention(5, 3, 1, value_dim=9),  # no vectors
    Attention(64, 20, 40, torch.float16),
    Attention(16, 33, 150, scale=30.0),  # logits in the thousands
]


def check_attention(implementation, case, device="cpu"):
    q, k, v = case.arguments(device)
    exact = reference.attention(q.double(), k.double(), v.double())
    same = F.scaled_dot_product_attention(q, k, v)
    got = implementation(q, k, v)
    assert got.dtype == v.dtype and got.shape == exact.shape
    assert got.transpose(1, 2).is_contiguous(), "heads join without a copy"
    atol = ULPS[v.dtype] if case.scale == 1 else 2e-3
    assert error(got, exact) <= 2 * error(same, exact) + atol, (case, error(got, exact), error(same, exact))


@dataclass(frozen=True)
class LayerNormed:
    """One case of layer_norm."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    residual: bool = True
    quantize: torch.dtype | None = None
    mean: float = 0.0
    strided: bool = False

    def arguments(self, device="cpu"):
        random = torch.Generator().manual_seed(0)

        def tensor(*shape):
            x = torch.randn(*shape, generator=random).to(self.dtype)
            return (torch.stack((x, x), -1)[..., 0] if self.strided else x).to(device)

        x = tensor(*self.shape) + self.mean
        weight, bias = tensor(self.shape[-1]), tensor(self.shape[-1])
        return x, weight, bias, 1e-5, tensor(*self.shape) if self.residual else None, self.quantize


LAYER_NORMS = [
    *(LayerNormed((2, 33, 40), dtype, residual) for dtype in DTYPES for residual in (False, True)),
    *(LayerNormed((9, 320), quantize=dtype) for dtype in (INT8, FP8)),
    LayerNormed((3, 1280), torch.float16, quantize=INT8, residual=False),
    LayerNormed((5, 1), residual=False),  # a row of one value: its variance is zero
    LayerNormed((1, 7, 641), strided=True),
    LayerNormed((4, 320), mean=1e3),
    LayerNormed((2, 0, 8)),
]


def check_layer_norm(implementation, case, device="cpu"):
    x, weight, bias, eps, residual, quantize = case.arguments(device)
    normed, scale, summed = implementation(x, weight, bias, eps, residual, quantize)
    base = x if residual is None else x + residual
    if residual is None:
        assert summed.numel() == 0
    else:
        assert torch.equal(summed, base), "the sum is rounded as PyTorch rounds it"
    if x.numel() == 0:
        assert normed.shape == x.shape
        return
    exact = F.layer_norm(base.double(), base.shape[-1:], weight.double(), bias.double(), eps)
    same = F.layer_norm(base, base.shape[-1:], weight, bias, eps)
    bound = 2 * error(same, exact) + 4 * ULPS[x.dtype]
    if quantize is None:
        assert normed.dtype == x.dtype and scale.numel() == 0
        assert error(normed, exact) <= bound, case
    else:
        check_rows(normed, scale, exact, quantize, bound)


def check_rows(values, scale, exact, dtype, bound=1e-6):
    """8-bit rows are within half a step of what they stand for, and use the whole range."""
    assert values.dtype == dtype and scale.dtype == torch.float32 and scale.shape == exact.shape[:-1]
    wide = values.double()
    largest = reference.LARGEST[dtype]
    assert bool((wide.abs().amax(-1) == largest).all())
    # of int8 half a step everywhere; of e4m3 half a unit of 3 bits, or half the smallest step near zero
    half = 0.5 if dtype == INT8 else (wide.abs() / 16).clamp(min=2.0**-10)
    assert bool(((wide * scale.double()[..., None] - exact).abs() <= half * scale.double()[..., None] + bound).all())


GEGLUS = [*((5, 40, 24, dtype) for dtype in DTYPES), (130, 64, 70, torch.float32), (3, 33, 5, torch.float32)]


def check_geglu(implementation, case, device="cpu"):
    """case: rows, K, N, dtype"""
    rows, depth, width, dtype = case
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, rows, depth, generator=random).to(dtype).to(device)
    weight = (torch.randn(2 * width, depth, generator=random) / depth**0.5).to(dtype).to(device)
    bias = torch.randn(2 * width, generator=random).to(dtype).to(device)
    hidden, gate = F.linear(x, weight, bias).chunk(2, dim=-1)
    same, exact = hidden * F.gelu(gate), reference.geglu(x.double(), weight.double(), bias.double())
    got = implementation(x, weight, bias)
    assert got.dtype == dtype and got.shape == exact.shape
    assert error(got, exact) <= 2 * error(same, exact) + ULPS[dtype], case


@dataclass(frozen=True)
class Quantized:
    """One case of quantized_linear."""

    kind: torch.dtype
    rows: int = 5
    depth: int = 40
    width: int = 24
    bias: bool = True
    gated: bool = False
    dtype: torch.dtype = torch.float32

    def arguments(self, device="cpu"):
        random = torch.Generator().manual_seed(0)
        x, x_scale = reference.quantize_rows(torch.randn(2, self.rows, self.depth, generator=random), self.kind)
        outputs = self.width * (2 if self.gated else 1)
        weight = torch.randn(outputs, self.depth, generator=random) / self.depth**0.5
        bias = torch.randn(outputs, generator=random).to(self.dtype).to(device) if self.bias else None
        numbers = (*(t.to(device) for t in (x, x_scale, *reference.quantize_rows(weight, self.kind))), bias)
        return *numbers, self.dtype, self.gated


QUANTIZED = [
    *(Quantized(kind, gated=gated) for kind in (INT8, FP8) for gated in (False, True)),
    *(Quantized(kind, rows=70, depth=300, width=130, bias=False) for kind in (INT8, FP8)),
    Quantized(INT8, depth=33, width=7, gated=True),
    Quantized(INT8, depth=5120, rows=1, width=3),
    Quantized(INT8, dtype=torch.float16),
]


def check_quantized_linear(implementation, case, device="cpu"):
    x, x_scale, weight, weight_scale, bias, dtype, gated = case.arguments(device)
    wide = (x.double() * x_scale.double()[..., None], weight.double() * weight_scale.double()[:, None])
    exact = F.linear(*wide, None if bias is None else bias.double())
    same = F.linear(*(t.float() for t in wide), None if bias is None else bias.float())
    if gated:
        exact, same = (h * F.gelu(g) for h, g in (exact.chunk(2, -1), same.chunk(2, -1)))
    got = implementation(x, x_scale, weight, weight_scale, bias, dtype, gated)
    assert got.dtype == dtype and got.shape == exact.shape
    # Hopper's tensor cores sum fp8 in some 14 bits, of a block of 128
    in_few_bits = exact.abs().max().item() * 2**-10 if case.kind == FP8 and device == "cuda" else 0.0
    assert error(got, exact) <= 2 * error(same.to(dtype), exact) + 2 * ULPS[dtype] + in_few_bits, case
