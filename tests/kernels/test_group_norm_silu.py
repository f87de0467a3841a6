import pytest
import torch
from kernel_cases import NORMS, Norm, check_large_mean, check_norm

from ip2p_fast.errors import BadInput
from ip2p_fast.kernels import group_norm_silu, reference


@pytest.mark.parametrize("case", NORMS, ids=str)
def test_every_instruction_set_is_as_exact_as_pytorch(isa, case):
    check_norm(group_norm_silu, case)


def test_a_large_mean_costs_no_digits(isa):
    check_large_mean(group_norm_silu)


@pytest.mark.parametrize("case", [NORMS[0], NORMS[1], NORMS[6]], ids=str)
def test_the_reference_keeps_the_contract_too(case):
    check_norm(reference.group_norm_silu, case)


@pytest.mark.parametrize("memory", ["contiguous", "channels_last"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_sample_is_the_same_bit_for_bit_alone_and_in_company(isa, memory, threads):
    x, weight, bias, groups, eps, shift, silu = Norm((3, 64, 17, 19), 32, memory=memory).arguments()
    alone = [group_norm_silu(x[i : i + 1], weight, bias, groups, eps, shift[i : i + 1], silu) for i in range(3)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = group_norm_silu(x, weight, bias, groups, eps, shift, silu)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together, torch.cat(alone))


def test_extreme_values_saturate_as_silu_does(isa):
    """silu(y) = y for large y and 0 for very negative y, far outside the range of exp."""
    x = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2)
    for scale in (1e2, 1e4, 1e30):
        low, high = group_norm_silu(x, torch.tensor([scale]), torch.zeros(1), 1, 0.0).flatten().tolist()
        assert high == pytest.approx(scale, rel=1e-6) and abs(low) < 1e-6 * scale


def test_nan_stays_nan(isa):
    x = torch.randn(1, 8, 4, 4)
    x[0, 0, 0, 0] = float("nan")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        y = group_norm_silu(x.to(dtype), torch.ones(8), torch.zeros(8), 4)
        assert y[0, :2].isnan().all() and y[0, 2:].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stores_round_to_nearest_even(isa, dtype):
    """With SiLU off, weight 0 and bias b, y is b rounded as torch rounds it, subnormals included."""
    bits = torch.arange(0, 2**31 - 2**23, 500_009, dtype=torch.int64).to(torch.int32)
    bias = torch.cat((bits.view(torch.float32), -bits.view(torch.float32)))
    x = torch.randn(1, bias.numel(), 1, 2).to(dtype)
    y = group_norm_silu(x, torch.zeros_like(bias), bias, bias.numel(), silu=False)
    assert torch.equal(y[0, :, 0, 0], bias.to(dtype))


@pytest.mark.parametrize("memory", ["contiguous", "channels_last", "sliced"])
def test_opcheck(memory):
    arguments = Norm((2, 20, 5, 6), 10, memory=memory).arguments()
    torch.library.opcheck(torch.ops.ip2p_fast.group_norm_silu.default, arguments)


def test_one_graph_through_torch_compile():
    arguments = NORMS[0].arguments()
    compiled = torch.compile(group_norm_silu, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*arguments), group_norm_silu(*arguments))


def test_gradients_flow():
    x, *rest = NORMS[0].arguments()
    x.requires_grad_()
    group_norm_silu(x, *rest).square().sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 20, 5)}, r"\[N, C, H, W\]"),
        ({"x": torch.zeros(2, 20, 5, 5, dtype=torch.int64)}, "floating-point"),
        ({"groups": 7}, "20 channels do not divide into 7 groups"),
        ({"groups": 0}, "0 groups"),
        ({"weight": torch.ones(21)}, r"weight is torch.float32 \[21\]"),
        ({"bias": torch.ones(20, dtype=torch.int32)}, "bias is torch.int32"),
        ({"shift": torch.ones(20)}, "shift is"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"bias": torch.ones(20, device="meta")}, "bias is on meta"),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = {"x": torch.zeros(2, 20, 5, 5), "weight": torch.ones(20), "bias": torch.ones(20), "groups": 10}
    with pytest.raises(BadInput, match=message):
        group_norm_silu(**{**good, **change})
