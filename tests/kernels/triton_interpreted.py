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

from ip2p_fast.kernels.triton_kernels.group_norm_silu import group_norm_silu
from ip2p_fast.kernels.triton_kernels.guided_step import guided_step
from ip2p_fast.kernels.triton_kernels.paired_attention import paired_attention

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
