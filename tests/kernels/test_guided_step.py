import pytest
import torch
from kernel_cases import STEPS, Step, check_step, check_zeros_hide_what_they_multiply

from ip2p_fast.errors import BadInput
from ip2p_fast.kernels import guided_step, reference, use


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_every_instruction_set_is_as_exact_as_pytorch(isa, case):
    check_step(guided_step, case)


def test_a_zero_hides_what_it_multiplies(isa):
    check_zeros_hide_what_they_multiply(guided_step)


def test_the_reference_keeps_the_contract_too():
    check_step(reference.guided_step, STEPS[0])
    check_zeros_hide_what_they_multiply(reference.guided_step)


def test_the_formula_written_out():
    """One edit of two rows, one latent value: 2 x 3 - 1 x 1 = 5 is the guided prediction."""
    one = lambda *values: torch.tensor(values).view(-1, 1, 1, 1)  # noqa: E731
    coefficients = torch.tensor([[0.5, 2.0, 3.0, 5.0, 7.0, 11.0, 13.0]])  # a, b0, b1, b2, c, p, q
    history = torch.tensor([17.0, 19.0]).view(1, 2, 1, 1, 1)
    x, noise = one(23.0), one(29.0)
    x_next, next_history = guided_step(
        one(3.0, 1.0), torch.tensor([0, 2]), torch.tensor([2.0, -1.0]), x, history, coefficients, noise
    )
    d = 11.0 * 23.0 + 13.0 * 5.0
    assert x_next.item() == 0.5 * 23.0 + 2.0 * d + 3.0 * 17.0 + 5.0 * 19.0 + 7.0 * 29.0
    assert next_history.flatten().tolist() == [d, 17.0]


@pytest.mark.parametrize("memory", ["contiguous", "channels_last"])
def test_an_edit_is_the_same_bit_for_bit_alone_and_in_company(isa, memory):
    eps, row_start, weights, x, history, coefficients, noise = Step((3, 2, 1), (4, 33, 37), memory=memory).arguments()
    together = guided_step(eps, row_start, weights, x, history, coefficients, noise)
    for edit, (first, last) in enumerate([(0, 3), (3, 5), (5, 6)]):
        one = slice(edit, edit + 1)
        alone = guided_step(
            eps[first:last], torch.tensor([0, last - first]), weights[first:last], x[one], history[one],
            coefficients[one], noise[one],
        )  # fmt: skip
        assert torch.equal(alone[0], together[0][one]) and torch.equal(alone[1], together[1][one])


def test_inputs_are_left_as_they_were():
    arguments = STEPS[0].arguments()
    before = [t.clone() for t in arguments]
    guided_step(*arguments)
    assert all(torch.equal(now, then) for now, then in zip(arguments, before, strict=True))


def test_opcheck():
    torch.library.opcheck(torch.ops.ip2p_fast.guided_step.default, tuple(STEPS[0].arguments()))


def test_one_graph_through_torch_compile():
    arguments = STEPS[0].arguments()
    compiled = torch.compile(guided_step, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*arguments), guided_step(*arguments), strict=True):
        assert torch.equal(got, want)


def test_float64_is_computed_in_float64():
    arguments = [t.double() if t.is_floating_point() else t for t in STEPS[0].arguments()]
    x_next, _ = guided_step(*arguments)
    assert x_next.dtype == torch.float64 and torch.equal(x_next, reference.guided_step(*arguments)[0])


def test_gradients_flow():
    arguments = STEPS[0].arguments()
    arguments[0].requires_grad_()
    guided_step(*arguments)[0].sum().backward()
    assert arguments[0].grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, torch.zeros(6, 4, 8, 9), "eps has shape"),
        (0, torch.zeros(6, 4, 8, 8, dtype=torch.int32), "floating-point"),
        (1, torch.tensor([0, 3, 4]), "row_start has shape"),
        (1, torch.tensor([0, 3, 4, 6], dtype=torch.int32), "torch.int64"),
        (1, torch.tensor([0, 3, 2, 6]), "must rise"),
        (1, torch.tensor([0, 3, 4, 7]), "rows of eps"),
        (1, torch.tensor([-1, 3, 4, 6]), "must rise from 0"),
        (2, torch.zeros(5), "weights has shape"),
        (3, torch.zeros(3, 4, 8, 8, dtype=torch.bfloat16), "x is torch.bfloat16"),
        (3, torch.zeros(3, 4, 64), r"\[edits >= 1"),
        (4, torch.zeros(3, 1, 4, 8, 8), "history has shape"),
        (5, torch.zeros(3, 6), "coefficients has shape"),
        (6, torch.zeros(1, 4, 8, 8), "noise has shape"),
        (6, torch.zeros(3, 4, 8, 8, device="meta"), "noise is on meta"),
    ],
)
def test_bad_arguments_are_named(position, value, message):
    arguments = Step((3, 1, 2)).arguments()
    arguments[position] = value
    with pytest.raises(BadInput, match=message):
        guided_step(*arguments)


def test_the_operator_itself_refuses_rows_that_are_not_there(isa):
    arguments = Step((3, 1, 2)).arguments()
    arguments[1] = torch.tensor([0, 3, 4, 700])
    with pytest.raises(RuntimeError, match="row_start"):
        torch.ops.ip2p_fast.guided_step(*arguments)


def test_use_chooses_when_called():
    arguments = STEPS[3].arguments()
    with use("reference"):
        inside = guided_step(*arguments)
    assert torch.equal(inside[0], reference.guided_step(*arguments)[0])
    with pytest.raises(BadInput, match="choose auto or reference"):
        use("fastest")
