"""paired_attention on the CPU: the contract, what it accepts, and what it does not keep in memory."""

import pytest
import torch
from kernel_cases import PAIRED, Paired, check_large_logits, check_paired

from ip2p_fast import kernels
from ip2p_fast.errors import BadInput
from ip2p_fast.kernels import paired_attention, reference


@pytest.mark.parametrize("case", PAIRED, ids=str)
def test_the_contract_on_every_instruction_set(case, isa):
    check_paired(paired_attention, case)


@pytest.mark.parametrize("case", PAIRED[:3], ids=str)
def test_the_contract_of_the_reference(case):
    with kernels.use("reference"):
        check_paired(paired_attention, case)


def test_large_logits(isa):
    check_large_logits(paired_attention)


def test_a_row_with_its_own_map_is_plain_attention():
    q, k, v, _ = Paired((0, 0), maps=2).arguments()
    own = paired_attention(q, k, v, torch.tensor([0, 1]))
    torch.testing.assert_close(own, torch.nn.functional.scaled_dot_product_attention(q, k, v))
    shared = paired_attention(q, k, v, torch.tensor([0, 0]))
    torch.testing.assert_close(shared[0], own[0])
    assert (shared[1] - own[1]).abs().max() > 0.1


def test_a_row_is_the_same_bits_whatever_the_threads():
    q, k, v, source_of_row = Paired((0, 0, 1), maps=2, queries=300, keys=600).arguments()
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(paired_attention(q, k, v, source_of_row))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_nan_stays_nan():
    q, k, v, source_of_row = Paired((0, 0), maps=1).arguments()
    k[0, 0, 3, 2] = float("nan")
    assert paired_attention(q, k, v, source_of_row)[:, 0].isnan().all()


def test_gradients_flow_through_the_reference():
    q, k, v, source_of_row = (t.requires_grad_() if t.is_floating_point() else t for t in Paired((0, 0), 1).arguments())
    paired_attention(q, k, v, source_of_row).sum().backward()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in (q, k, v))


def test_opcheck():
    arguments = Paired((0, 0, 2, 2), maps=4).arguments()
    torch.library.opcheck(torch.ops.ip2p_fast.paired_attention.default, arguments)


def test_float64_goes_to_the_reference():
    arguments = [t.double() if t.is_floating_point() else t for t in Paired((0, 0), maps=1).arguments()]
    assert torch.equal(paired_attention(*arguments), reference.paired_attention(*arguments))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 2, 4)}, r"q has shape \[2, 2, 4\]; it must be \[maps, heads, N, d >= 1\]"),
        ({"k": torch.zeros(2, 2, 4, 6)}, r"k has shape \[2, 2, 4, 6\]; q asks for \[2, 2, M >= 1, 8\]"),
        ({"k": torch.zeros(2, 2, 0, 8)}, r"k has shape \[2, 2, 0, 8\]"),
        ({"v": torch.zeros(3, 2, 5, 8)}, r"v has shape \[3, 2, 5, 8\]; k asks for \[rows, 2, 4, any\]"),
        ({"source_of_row": torch.tensor([0, 1])}, r"source_of_row is torch.int64 \[2\]; v asks for int64 \[3\]"),
        ({"source_of_row": torch.tensor([0, 1, 2])}, r"source_of_row\[2\] is 2; it must be one of the 2 rows of q"),
        ({"source_of_row": torch.tensor([0, -1, 1])}, r"source_of_row\[1\] is -1"),
        ({"q": torch.zeros(2, 2, 4, 8, dtype=torch.float16)}, r"q is torch.float16, v is torch.float32"),
        ({"v": torch.zeros(3, 2, 4, 8, device="meta")}, r"q is on cpu, v on meta"),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = {
        "q": torch.zeros(2, 2, 4, 8),
        "k": torch.zeros(2, 2, 4, 8),
        "v": torch.zeros(3, 2, 4, 8),
        "source_of_row": torch.tensor([0, 1, 1]),
    }
    paired_attention(**good)
    with pytest.raises(BadInput, match=message):
        paired_attention(**(good | change))
