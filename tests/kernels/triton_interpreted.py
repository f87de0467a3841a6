"""The contract on the Triton kernels. test_triton.py runs it apart: Triton chooses its interpreter at import."""

import warnings

import pytest
import torch
from kernel_cases import (
    NORMS,
    PAIRED,
    STEPS,
    Norm,
    Step,
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
    check_attention,
    check_geglu,
    check_layer_norm,
    check_quantized_linear,
    check_rows,
)

from ip2p_fast.kernels.triton_kernels.attention import flash_attention
from ip2p_fast.kernels.triton_kernels.geglu import fused, product_and_gate
from ip2p_fast.kernels.triton_kernels.group_norm_silu import group_norm_silu
from ip2p_fast.kernels.triton_kernels.guided_step import guided_step
from ip2p_fast.kernels.triton_kernels.layer_norm import layer_norm
from ip2p_fast.kernels.triton_kernels.paired_attention import paired_attention
from ip2p_fast.kernels.triton_kernels.quantize_rows import quantize_rows
from ip2p_fast.kernels.triton_kernels.quantized_conv2d import quantized_conv2d
from ip2p_fast.kernels.triton_kernels.quantized_group_norm_silu import quantized_group_norm_silu
from ip2p_fast.kernels.triton_kernels.quantized_linear import quantized_linear

warnings.filterwarnings("ignore", "overflow encountered in exp")  # e^-y of a very negative y: y / inf = 0 is meant


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_guided_step(case):
    check_step(guided_step, case)


def test_a_zero_hides_what_it_multiplies():
    check_zeros_hide_what_they_multiply(guided_step)


def test_rows_that_are_not_there_are_not_read():
    eps, row_start, *rest = Step((2, 1)).arguments()
    beyond = guided_step(eps, torch.tensor([-5, 2, 700]), *rest)
    assert torch.equal(beyond[0], guided_step(eps, row_start, *rest)[0])


@pytest.mark.parametrize("case", [case for case in NORMS if case.dtype != torch.bfloat16], ids=str)
def test_group_norm_silu(case):
    # bfloat16 stores are left to the GPU: the interpreter rounds them toward zero
    check_norm(group_norm_silu, case)


def test_a_large_mean_costs_no_digits():
    check_large_mean(group_norm_silu)


def test_many_slabs_merge_as_few():
    check_norm(group_norm_silu, Norm((1, 8, 40, 40), 2))  # 100 slabs: more than one block of them


@pytest.mark.parametrize("case", [case for case in PAIRED if case.dtype != torch.bfloat16], ids=str)
def test_paired_attention(case):
    check_paired(paired_attention, case)


def test_large_logits():
    check_large_logits(paired_attention)


@pytest.mark.parametrize("case", [case for case in ATTENTIONS if case.dtype != torch.bfloat16], ids=str)
def test_attention(case):
    check_attention(flash_attention, case)


@pytest.mark.parametrize(
    "case", [case for case in LAYER_NORMS if case.dtype != torch.bfloat16 and case.quantize != FP8], ids=str
)
def test_layer_norm(case):
    check_layer_norm(layer_norm, case)


@pytest.mark.parametrize("case", [case for case in GEGLUS if case[-1] != torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", [fused, product_and_gate])
def test_geglu(way, case):
    check_geglu(way, case)


@pytest.mark.parametrize("case", QUANTIZED, ids=str)
def test_quantized_linear(case):
    check_quantized_linear(quantized_linear, case)


def test_quantize_rows():
    # e4m3 stores are left to the GPU too: the interpreter rounds ties up and small values to zero
    x = torch.randn(70, 40)
    check_rows(*quantize_rows(x, INT8), x.double(), INT8)


@pytest.mark.parametrize("case", [case for case in QUANTIZED_NORMS if case.kind != FP8], ids=str)
def test_quantized_group_norm_silu(case):
    check_quantized_norm(quantized_group_norm_silu, case)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_quantized_conv2d(case):
    check_quantized_conv2d(quantized_conv2d, case)
