"""Between its first step and its picture, an edit never asks the device for a value: a GPU would wait for it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select")


class Waits(TorchDispatchMode):
    """Operations whose result is a value, or a shape, of the host's."""

    def __init__(self):
        super().__init__()
        self.found, self.operations = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        if func._schema.name in WAITING:
            self.found.append(func._schema.name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "settings",
    [{}, {"sampler": "dpmpp_2m"}, {"guidance_refresh": 2}, {"deep_refresh": 2}, {"guidance_interval": (0, 0.5)}],
)
def test_no_step_waits_for_the_device(tiny_editor, pictures, settings):
    seen = []

    def watch(progress):
        if progress.step == 1:
            mode = Waits()
            mode.__enter__()
            seen.append(mode)
        elif progress.step == progress.steps:
            seen[0].__exit__(None, None, None)

    tiny_editor.edit(pictures[0], "make it night", steps=6, seed=1, size=16, on_step=watch, **settings)
    assert seen[0].operations > 100  # it did watch the steps
    assert seen[0].found == []


def test_a_wait_would_be_seen():
    with Waits() as mode:
        torch.ones(3).sum().item()
        torch.ones(3).nonzero()
    assert mode.found == ["aten::_local_scalar_dense", "aten::nonzero"]
