"""The channels-last group norm is PyTorch's, forwards and backwards."""

import pytest
import torch
from torch import nn

from ip2p_fast.training.pocket.group_norm import keep_channels_last


@pytest.mark.parametrize("shape", [(2, 32, 8, 8), (1, 48, 5, 7), (3, 16, 1, 1)])
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_output_and_gradients_equal_pytorchs(shape, offset):
    torch.manual_seed(0)
    theirs, ours = (nn.GroupNorm(8, shape[1]).double() for _ in range(2))
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_()
            ours.get_parameter(name).copy_(parameter)
    keep_channels_last(ours)
    x = (torch.randn(shape, dtype=torch.float64) + offset).to(memory_format=torch.channels_last)
    weights = torch.randn(shape, dtype=torch.float64)

    def run(norm: nn.Module) -> tuple[torch.Tensor, ...]:
        given = x.clone(memory_format=torch.preserve_format).requires_grad_()
        out = norm(given)
        return out, *torch.autograd.grad((out * weights).sum(), [given, *norm.parameters()])

    # the sums over the pixels are taken in fp32
    for got, expected in zip(run(ours), run(theirs), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3 * (1 + offset))


def test_names_of_the_weights_stay():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16))
    names = list(model.state_dict())
    assert list(keep_channels_last(model).state_dict()) == names
