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

from ip2p_fast import kernels

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture(params=["dispatched", "triton"])
def implementation(request):
    """name -> the operator: as users call it, or its Triton kernel."""
    if request.param == "dispatched":
        return lambda name: getattr(kernels, name)
    pytest.importorskip("triton")
    return lambda name: getattr(importlib.import_module(f"ip2p_fast.kernels.triton_kernels.{name}"), name)


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


@pytest.mark.parametrize("case", PAIRED, ids=str)
def test_paired_attention(implementation, case):
    check_paired(implementation("paired_attention"), case, "cuda")


def test_large_logits(implementation):
    check_large_logits(implementation("paired_attention"), "cuda")


@pytest.mark.parametrize("name", ["guided_step", "group_norm_silu", "paired_attention"])
def test_something_fused_serves_cuda(name):
    assert kernels.status()["kernels"][name]["cuda"] in ("cuda c++", "triton")
