"""The residual blocks' 8-bit operators on the CPU, where the reference runs: the contract, and what is refused."""

import pytest
import torch
from kernel_cases import Norm
from resnet_cases import (
    CONVOLUTIONS,
    INT8,
    QUANTIZED_NORMS,
    Convolved,
    check_quantized_conv2d,
    check_quantized_norm,
)

from ip2p_fast import kernels
from ip2p_fast.errors import BadInput


@pytest.mark.parametrize("case", QUANTIZED_NORMS, ids=str)
def test_quantized_group_norm_silu(case):
    check_quantized_norm(kernels.quantized_group_norm_silu, case)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_quantized_conv2d(case):
    check_quantized_conv2d(kernels.quantized_conv2d, case)


X, WEIGHT, BIAS, GROUPS, _, SHIFT, _ = Norm((2, 8, 4, 5), 4).arguments()
NORM = (X, WEIGHT, BIAS, GROUPS, torch.ones(8), INT8)
EIGHT, TAPS, _, _, OFFSET, RESIDUAL = Convolved(INT8, (2, 8, 4, 5), 6).arguments()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("quantized_group_norm_silu", (*NORM, 1e-5, SHIFT)),
        ("quantized_conv2d", (EIGHT, TAPS, torch.ones(6), torch.float32, OFFSET, RESIDUAL)),
        ("quantized_conv2d", (EIGHT, TAPS, torch.ones(6), torch.bfloat16)),
    ],
)
def test_opcheck(name, arguments):
    torch.library.opcheck(getattr(torch.ops.ip2p_fast, name).default, arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("quantized_group_norm_silu", (X, WEIGHT, BIAS, 3, *NORM[4:]), "8 channels do not divide into 3 groups"),
        ("quantized_group_norm_silu", (*NORM[:4], torch.ones(7), INT8), r"scale has shape \[7\]; x asks for \[8\]"),
        ("quantized_group_norm_silu", (*NORM[:4], torch.ones(8).half(), INT8), "scale is torch.float16"),
        ("quantized_group_norm_silu", (*NORM[:5], torch.int16), "dtype is torch.int16"),
        ("quantized_conv2d", (X, TAPS, torch.ones(6), torch.float32), "x is torch.float32"),
        ("quantized_conv2d", (EIGHT[0], TAPS, torch.ones(6), torch.float32), r"x has shape \[8, 4, 5\]"),
        (
            "quantized_conv2d",
            (EIGHT, TAPS[..., :7], torch.ones(6), torch.float32),
            r"weight has shape \[6, 3, 3, 7\]; x asks for \[O, 3, 3, 8\]",
        ),
        ("quantized_conv2d", (EIGHT, TAPS.float(), torch.ones(6), torch.float32), "weight is torch.float32, x is"),
        ("quantized_conv2d", (EIGHT, TAPS, torch.ones(6), INT8), "dtype is torch.int8"),
        ("quantized_conv2d", (EIGHT, TAPS, torch.ones(5), torch.float32), r"scale has shape \[5\]"),
        ("quantized_conv2d", (EIGHT, TAPS, torch.ones(6), torch.float32, torch.ones(5)), r"bias has shape \[5\]"),
        (
            "quantized_conv2d",
            (EIGHT, TAPS, torch.ones(6), torch.float32, None, RESIDUAL.half()),
            "residual is torch.float16; it must be torch.float32",
        ),
    ],
)
def test_bad_arguments_are_named(name, arguments, message):
    with pytest.raises(BadInput, match=f"{name}: {message}"):
        getattr(kernels, name)(*arguments)
