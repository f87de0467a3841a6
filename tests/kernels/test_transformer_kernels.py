"""The transformers' operators on the CPU, where the reference runs: the contract, and what is refused."""

import pytest
import torch
from transformer_cases import (
    ATTENTIONS,
    FP8,
    GEGLUS,
    INT8,
    LAYER_NORMS,
    QUANTIZED,
    Attention,
    LayerNormed,
    Quantized,
    check_attention,
    check_geglu,
    check_layer_norm,
    check_quantized_linear,
    check_rows,
)

from ip2p_fast import kernels
from ip2p_fast.errors import BadInput


@pytest.mark.parametrize("case", ATTENTIONS, ids=str)
def test_attention(case):
    check_attention(kernels.attention, case)


@pytest.mark.parametrize("case", LAYER_NORMS, ids=str)
def test_layer_norm(case):
    check_layer_norm(kernels.layer_norm, case)


@pytest.mark.parametrize("case", GEGLUS, ids=str)
def test_geglu(case):
    check_geglu(kernels.geglu, case)


@pytest.mark.parametrize("case", QUANTIZED, ids=str)
def test_quantized_linear(case):
    check_quantized_linear(kernels.quantized_linear, case)


@pytest.mark.parametrize("dtype", [INT8, FP8])
def test_quantized_rows_use_the_whole_range_and_a_row_of_zeros_stays_zero(dtype):
    x = torch.randn(3, 7, 40) * torch.tensor([1e-3, 1.0, 1e3]).view(3, 1, 1)
    values, scale = kernels.quantize_rows(x, dtype)
    check_rows(values, scale, x.double(), dtype, bound=1e-3)
    values, scale = kernels.quantize_rows(torch.zeros(2, 8), dtype)
    assert bool((values.float() == 0).all()) and scale.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("attention", Attention(16, 5, 7).arguments()),
        ("layer_norm", LayerNormed((3, 8)).arguments()),
        ("layer_norm", LayerNormed((3, 8), residual=False, quantize=INT8).arguments()),
        ("geglu", (torch.randn(2, 8), torch.randn(6, 8), torch.randn(6))),
        ("quantize_rows", (torch.randn(2, 8), INT8)),
        ("quantized_linear", Quantized(INT8, gated=True).arguments()),
    ],
)
def test_opcheck(name, arguments):
    torch.library.opcheck(getattr(torch.ops.ip2p_fast, name).default, arguments)


Q, X = torch.zeros(2, 3, 4, 8), torch.zeros(4, 8)
EIGHT = (torch.zeros(4, 8, dtype=INT8), torch.ones(4), torch.zeros(6, 8, dtype=INT8), torch.ones(6))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("attention", (Q[0], Q, Q), r"q has shape \[3, 4, 8\]"),
        ("attention", (Q, Q[..., :7], Q), r"k has shape \[2, 3, 4, 7\]; q asks for \[2, 3, M >= 1, 8\]"),
        ("attention", (Q, Q, Q[:1]), r"v has shape \[1, 3, 4, 8\]"),
        ("attention", (Q, Q, Q.half()), "q is torch.float32, v is torch.float16"),
        ("layer_norm", (X, X[0], X[0, :7]), r"bias has shape \[7\]; x asks for \[8\]"),
        ("layer_norm", (X, X[0], X[0], -1.0), "eps is -1.0"),
        ("layer_norm", (X, X[0], X[0], 1e-5, X.half()), "residual is torch.float16"),
        ("layer_norm", (X, X[0], X[0], 1e-5, None, torch.int16), "quantize is torch.int16"),
        ("geglu", (X, torch.zeros(5, 8), torch.zeros(5)), r"weight is \[5, 8\]; x \[4, 8\] asks for \[2 N, 8\]"),
        ("geglu", (X, torch.zeros(6, 8).half(), torch.zeros(6)), "weight is torch.float16"),
        ("quantize_rows", (X, torch.int16), "dtype is torch.int16; it must be torch.int8 or torch.float8_e4m3fn"),
        ("quantized_linear", (X, *EIGHT[1:], None, torch.float32), "x is torch.float32"),
        ("quantized_linear", (*EIGHT[:3], torch.ones(5), None, torch.float32), r"weight_scale has shape \[5\]"),
        ("quantized_linear", (*EIGHT, None, torch.int8), "dtype is torch.int8"),
        ("quantized_linear", (*EIGHT, torch.ones(5), torch.float32), r"bias has shape \[5\]"),
    ],
)
def test_bad_arguments_are_named(name, arguments, message):
    with pytest.raises(BadInput, match=f"{name}: {message}"):
        getattr(kernels, name)(*arguments)
