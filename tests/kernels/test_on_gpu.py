"""The contract on a real chip: whatever serves CUDA (the extension or Triton), and Triton itself."""

import importlib

import pytest
import torch
from kernel_cases import (
    NORMS,
    PAIRED,
    STEPS,
    check_large_logits,
    check_large_mean,
    check_norm,
    check_paired,
    check_step,
    check_zeros_hide_what_they_multiply,
)
from resnet_cases import CONVOLUTIONS, QUANTIZED_NORMS, check_quantized_conv2d, check_quantized_norm
from transformer_cases import (
    ATTENTIONS,
    FP8,
    GEGLUS,
    INT8,
    LAYER_NORMS,
    QUANTIZED,
    Quantized,
    check_attention,
    check_geglu,
    check_layer_norm,
    check_quantized_linear,
    check_rows,
)

from ip2p_fast import kernels

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def e4m3_runs(dtype):
    return dtype != FP8 or (torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9))


def triton_module(name):
    pytest.importorskip("triton")
    return importlib.import_module(f"ip2p_fast.kernels.triton_kernels.{name}")


@pytest.fixture(params=["dispatched", "triton"])
def implementation(request):
    """name -> the operator: as users call it, or its Triton kernel."""
    if request.param == "dispatched":
        return lambda name: getattr(kernels, name)
    return lambda name: getattr(triton_module(name), name)


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_guided_step(implementation, case):
    check_step(implementation("guided_step"), case, "cuda")


def test_a_zero_hides_what_it_multiplies(implementation):
    check_zeros_hide_what_they_multiply(implementation("guided_step"), "cuda")


@pytest.mark.parametrize("case", NORMS, ids=str)
def test_group_norm_silu(implementation, case):
    check_norm(implementation("group_norm_silu"), case, "cuda")


def test_a_large_mean_costs_no_digits(implementation):
    check_large_mean(implementation("group_norm_silu"), "cuda")


@pytest.mark.parametrize("case", [case for case in QUANTIZED_NORMS if e4m3_runs(case.kind)], ids=str)
def test_quantized_group_norm_silu(implementation, case):
    check_quantized_norm(implementation("quantized_group_norm_silu"), case, "cuda")


@pytest.mark.parametrize("case", [case for case in CONVOLUTIONS if e4m3_runs(case.kind)], ids=str)
def test_quantized_conv2d(implementation, case):
    check_quantized_conv2d(implementation("quantized_conv2d"), case, "cuda")


@pytest.mark.parametrize("case", PAIRED, ids=str)
def test_paired_attention(implementation, case):
    check_paired(implementation("paired_attention"), case, "cuda")


def test_large_logits(implementation):
    check_large_logits(implementation("paired_attention"), "cuda")


@pytest.mark.parametrize("case", ATTENTIONS, ids=str)
def test_attention(implementation, case):
    check_attention(implementation("attention"), case, "cuda")


@pytest.mark.parametrize("case", ATTENTIONS, ids=str)
@pytest.mark.parametrize("way", ["flash_attention", "library_attention"])
def test_every_way_to_attend(way, case):
    check_attention(getattr(triton_module("attention"), way), case, "cuda")


@pytest.mark.parametrize("case", [case for case in LAYER_NORMS if e4m3_runs(case.quantize)], ids=str)
def test_layer_norm(implementation, case):
    check_layer_norm(implementation("layer_norm"), case, "cuda")


@pytest.mark.parametrize("case", GEGLUS, ids=str)
@pytest.mark.parametrize("way", ["geglu", "fused", "product_and_gate"])
def test_every_way_to_geglu(way, case):
    check_geglu(getattr(triton_module("geglu"), way), case, "cuda")


@pytest.mark.parametrize("case", [case for case in QUANTIZED if e4m3_runs(case.kind)], ids=str)
def test_quantized_linear(implementation, case):
    check_quantized_linear(implementation("quantized_linear"), case, "cuda")


@pytest.mark.skipif(not e4m3_runs(FP8), reason="this GPU has no fp8")
@pytest.mark.parametrize("gated", [False, True])
def test_fp8_by_the_library(gated):
    case = Quantized(FP8, rows=70, depth=320, width=256, gated=gated, dtype=torch.bfloat16)
    check_quantized_linear(triton_module("quantized_linear").by_library, case, "cuda")


@pytest.mark.parametrize("dtype", [dtype for dtype in (INT8, FP8) if e4m3_runs(dtype)])
def test_quantize_rows(implementation, dtype):
    x = torch.randn(70, 40, device="cuda")
    check_rows(*implementation("quantize_rows")(x, dtype), x.double(), dtype)


@pytest.mark.parametrize("name", sorted(kernels.status()["kernels"]))
def test_something_fused_serves_cuda(name):
    assert kernels.status()["kernels"][name]["cuda"] in ("cuda c++", "triton")
