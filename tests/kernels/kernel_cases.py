"""The contract of the operators as checks that every implementation goes through: C++, Triton, CUDA, reference.

An implementation's error is bounded by PyTorch's own: err(fused) <= 2 err(PyTorch, same dtype) + a few ulp, both
against float64.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ip2p_fast.kernels import reference

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ULPS = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}  # a few units in the last place of 1


@dataclass(frozen=True)
class Step:
    """One case of guided_step: rows of each edit, latent shape, dtype and memory format of eps."""

    rows: tuple[int, ...]
    latent: tuple[int, int, int] = (4, 8, 8)
    dtype: torch.dtype = torch.float32
    memory: str = "contiguous"  # or channels_last, or strided

    def arguments(self, device="cpu", seed=0):
        """(eps, row_start, weights, x, history, coefficients, noise) of unit-normal values."""
        random = torch.Generator().manual_seed(seed)
        normal = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
        edits, rows = len(self.rows), sum(self.rows)
        eps = normal(rows, *self.latent).to(self.dtype)
        if self.memory == "channels_last":
            eps = eps.to(memory_format=torch.channels_last)
        if self.memory == "strided":
            eps = torch.stack((eps, eps + 1), dim=-1)[..., 0].transpose(2, 3).contiguous().transpose(2, 3)
        row_start = torch.tensor([0, *itertools.accumulate(self.rows)])
        state = normal(edits, *self.latent), normal(edits, 2, *self.latent), normal(edits, 7)
        return [t.to(device) for t in (eps, row_start, normal(rows), *state, normal(edits, *self.latent))]


STEPS = [
    *(Step((3, 1, 2), dtype=dtype) for dtype in DTYPES),
    Step((1,), latent=(4, 1, 1)),  # one pixel
    Step((2, 3), latent=(4, 7, 9)),  # no multiple of any vector
    Step((3,), latent=(16, 40, 33)),  # more than one block a channel
    Step((1, 3), latent=(4, 7, 9), dtype=torch.bfloat16, memory="channels_last"),
    Step((3, 3), latent=(4, 16, 16), memory="channels_last"),
    Step((2, 1), latent=(4, 6, 5), memory="strided"),
    Step((0, 2)),  # an edit with no row
]


def check_step(implementation, case, device="cpu"):
    arguments = case.arguments(device)
    exact = reference.guided_step(*(t.double() if t.is_floating_point() else t for t in arguments))
    plain = reference.guided_step(*arguments)
    for name, got, same, true in zip(("x", "history"), implementation(*arguments), plain, exact, strict=True):
        assert got.dtype == torch.float32 and got.is_contiguous(), name
        assert error(got, true) <= 2 * error(same, true) + 4e-6, f"{name} of {case}"


def check_zeros_hide_what_they_multiply(implementation, device="cpu"):
    """Each weight and coefficient of zero, alone: NaN behind it must not reach the result it is zero for."""
    case = Step((2, 1), latent=(4, 5, 7))
    a, b0, b1, b2, c, p, q = range(7)
    nan = float("nan")

    def run(zeros, spoil):
        eps, row_start, weights, x, history, coefficients, noise = case.arguments(device)
        coefficients[:, zeros] = 0
        spoil(eps=eps, weights=weights, x=x, history=history, noise=noise)
        x_next, history_next = implementation(eps, row_start, weights, x, history, coefficients, noise)
        return x_next, history_next[:, 0]

    def finite(zeros, spoil):
        return [bool(t.isfinite().all()) for t in run(zeros, spoil)]

    assert finite([c], lambda noise, **_: noise.fill_(nan)) == [True, True]
    assert finite([b1], lambda history, **_: history[:, 0].fill_(nan)) == [True, True]
    assert finite([b2], lambda history, **_: history[:, 1].fill_(nan)) == [True, True]
    assert finite([q], lambda eps, **_: eps.fill_(nan)) == [True, True]
    assert finite([a, p], lambda x, **_: x.fill_(float("inf"))) == [True, True]
    assert finite([a], lambda x, **_: x.fill_(nan)) == [False, False]  # p still reads it
    assert finite([b0], lambda eps, **_: eps.fill_(nan)) == [True, False]  # d is NaN, x' does not use it

    def unused_row(eps, weights, **_):
        weights[1] = 0
        eps[1] = nan

    assert finite([], unused_row) == [True, True]
    assert finite([], lambda noise, **_: noise.fill_(nan)) == [False, True]  # the check can fail


@dataclass(frozen=True)
class Norm:
    """One case of group_norm_silu."""

    shape: tuple[int, int, int, int]
    groups: int
    dtype: torch.dtype = torch.float32
    memory: str = "channels_last"  # or contiguous, or sliced (channels-last channels of a wider tensor)
    shift: bool = True
    silu: bool = True
    mean: float = 0.0

    def arguments(self, device="cpu", seed=0):
        """(x, weight, bias, groups, eps, shift, silu)."""
        random = torch.Generator().manual_seed(seed)
        images, channels = self.shape[:2]
        x = (torch.randn(self.shape, generator=random) + self.mean).to(self.dtype)
        if self.memory == "channels_last":
            x = x.to(memory_format=torch.channels_last)
        if self.memory == "sliced":
            x = torch.cat((x, x), dim=1).to(memory_format=torch.channels_last)[
                :, channels // 2 : channels // 2 + channels
            ]
        weight, bias = (torch.randn(2, channels, generator=random)).to(self.dtype)
        shift = torch.randn(images, channels, generator=random).to(self.dtype).to(device) if self.shift else None
        return x.to(device), weight.to(device), bias.to(device), self.groups, 1e-5, shift, self.silu


NORMS = [
    *(Norm((2, 20, 7, 9), 10, dtype, memory) for dtype in DTYPES for memory in ("channels_last", "contiguous")),
    Norm((1, 10, 1, 1), 10, shift=False),  # a group of one value: its variance is zero
    Norm((1, 10, 5, 3), 10, memory="contiguous"),  # one channel a group
    Norm((3, 64, 1, 1), 32, memory="contiguous"),
    Norm((2, 30, 13, 11), 3, torch.bfloat16, silu=False),
    Norm((1, 320, 9, 8), 32, shift=False),
    Norm((1, 320, 9, 8), 32, torch.bfloat16, "contiguous", shift=False),
    Norm((1, 600, 3, 5), 2),  # groups wider than a strip of the CPU kernel
    Norm((2, 48, 17, 5), 8, memory="sliced"),
    Norm((1, 16, 48, 47), 4, memory="contiguous"),  # more than one slab a channel
    Norm((1, 16, 24, 23), 4, mean=1e3),
    Norm((1, 16, 24, 23), 4, mean=1e3, memory="contiguous"),
]


def check_norm(implementation, case, device="cpu"):
    x, weight, bias, groups, eps, shift, silu = case.arguments(device)
    wide = [t if t is None else t.double() for t in (weight, bias, shift)]
    exact = reference.group_norm_silu(x.double(), wide[0], wide[1], groups, eps, wide[2], silu)
    same = plain_norm(x, weight, bias, groups, eps, shift, silu)
    got = implementation(x, weight, bias, groups, eps, shift, silu)
    assert got.dtype == x.dtype and got.shape == x.shape
    if x.is_contiguous():
        assert got.is_contiguous()
    else:
        assert got.is_contiguous(memory_format=torch.channels_last)
    assert error(got, exact) <= 2 * error(same, exact) + 4 * ULPS[x.dtype], case


def check_large_mean(implementation, device="cpu"):
    """A mean of a thousand deviations costs the digits its rounding costs, and no more."""
    for memory in ("channels_last", "contiguous"):
        x, weight, bias, groups, eps, _, _ = Norm((2, 40, 16, 15), 4, memory=memory, mean=1e3).arguments(device)
        exact = reference.group_norm_silu(x.double(), weight.double(), bias.double(), groups, eps)
        assert error(implementation(x, weight, bias, groups, eps, None, True), exact) < 1e-3, memory


@dataclass(frozen=True)
class Paired:
    """One case of paired_attention: the map of each row, sizes, and whether heads are split off a wider tensor."""

    source_of_row: tuple[int, ...]
    maps: int
    heads: int = 2
    queries: int = 33
    keys: int = 33
    dim: int = 16
    value_dim: int = 16
    dtype: torch.dtype = torch.float32
    split: bool = False

    def arguments(self, device="cpu", seed=0):
        """(q, k, v, source_of_row) of unit-normal values."""
        random = torch.Generator().manual_seed(seed)

        def tokens(rows, count, dim):
            x = torch.randn(rows, count, self.heads, dim, generator=random).to(self.dtype).transpose(1, 2)
            return (x if self.split else x.contiguous()).to(device)

        q, k = tokens(self.maps, self.queries, self.dim), tokens(self.maps, self.keys, self.dim)
        v = tokens(len(self.source_of_row), self.keys, self.value_dim)
        return q, k, v, torch.tensor(self.source_of_row).to(device)


PAIRED = [
    *(Paired((0, 0, 2, 2), maps=4, dtype=dtype, split=True) for dtype in DTYPES),  # the four rows of Prompt-to-Prompt
    *(Paired((0, 1, 0, 1), maps=2, dim=40, value_dim=40, dtype=dtype) for dtype in DTYPES),  # fewer maps than rows
    Paired((0, 1, 2), maps=3),  # nothing shared: plain attention
    Paired((1, 1, 1, 0, 1), maps=3, queries=1, keys=70),  # five rows, an odd number of them on one map, one unused
    Paired((0, 0), maps=1, heads=1, queries=130, keys=600),  # more than one block either way
    Paired((0, 0), maps=1, heads=3, queries=7, keys=5, dim=5, value_dim=3),
    Paired((0, 0), maps=1, heads=1, queries=65, keys=77, dim=33, value_dim=40, dtype=torch.bfloat16),
    Paired((0,), maps=1, queries=1, keys=1),
]


def check_paired(implementation, case, device="cpu"):
    q, k, v, source_of_row = case.arguments(device)
    exact = reference.paired_attention(q.double(), k.double(), v.double(), source_of_row)
    same = F.scaled_dot_product_attention(q[source_of_row], k[source_of_row], v)
    got = implementation(q, k, v, source_of_row)
    assert got.dtype == v.dtype and got.shape == exact.shape and got.is_contiguous()
    assert error(got, exact) <= 2 * error(same, exact) + ULPS[v.dtype], (case, error(got, exact), error(same, exact))


def check_large_logits(implementation, device="cpu"):
    """Scores in the thousands, of either sign: one key takes all, and nothing overflows."""
    q, k, v, source_of_row = Paired((0, 0), maps=1, keys=600).arguments(device)
    q, k = 100 * q, 100 * k
    exact = reference.paired_attention(q.double(), k.double(), v.double(), source_of_row)
    assert error(implementation(q, k, v, source_of_row), exact) < 2e-3


def plain_norm(x, weight, bias, groups, eps, shift, silu):
    """What a model without this operator runs, in the dtype of x."""
    y = x if shift is None else x + shift[:, :, None, None]
    y = torch.group_norm(y, groups, weight, bias, eps)
    return F.silu(y) if silu else y


def error(got, exact):
    assert bool(got.isfinite().all())
    return (got.double() - exact).abs().max().item()
