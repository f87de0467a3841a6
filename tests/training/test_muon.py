"""Muon moves a matrix along every direction alike, whatever the shape or the layout of its parameter."""

import pytest
import torch
from torch import nn

from ip2p_fast.training.pocket.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(48, 48), (16, 90), (90, 16), (1, 5)])
def test_singular_values_come_near_one(shape):
    rng = torch.Generator().manual_seed(0)
    # a spread of 30 between the largest and the smallest
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=rng), full_matrices=False)
    values = torch.linspace(1.0, 1 / 30, min(shape))
    result = orthogonal(left * values @ right)
    assert result.shape == shape
    found = torch.linalg.svdvals(result.float())
    assert found.min() > 0.6
    assert found.max() < 1.3
    # and they stay with their vectors
    assert torch.einsum("mk,mn,kn->k", left, result.float(), right).min() > 0.6


def test_channels_last_kernels_take_the_same_step():
    torch.manual_seed(0)
    plain = nn.Parameter(torch.randn(8, 6, 3, 3))
    gradient = torch.randn_like(plain)
    last = nn.Parameter(plain.detach().clone(memory_format=torch.channels_last))
    for p in (plain, last):
        p.grad = gradient.clone(memory_format=torch.preserve_format if p is plain else torch.channels_last)
        optimizer = Muon([p])
        optimizer.param_groups[0]["lr"] = 0.1
        optimizer.step()
    torch.testing.assert_close(last.detach(), plain.detach(), rtol=0, atol=2e-3)


def test_a_rare_direction_is_learnt_as_fast_as_a_common_one():
    """Inputs along one axis are a hundred times as large as along the other; plain descent would crawl there."""
    torch.manual_seed(0)
    layer = nn.Linear(2, 2, bias=False)
    target = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    optimizer = Muon([layer.weight], weight_decay=0.0)
    optimizer.param_groups[0]["lr"] = 0.2
    scale = torch.tensor([10.0, 0.1])
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 300)
        x = torch.randn(64, 2) * scale
        layer.zero_grad()
        (layer(x) - x @ target.T).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), target, rtol=0, atol=0.05)
