"""Which way runs: the one that was measured fastest, and a library's until one was."""

import pytest
import torch

pytest.importorskip("triton")

from ip2p_fast.kernels.triton_kernels import fastest as module  # noqa: E402

TIMES = {"library": 2.0, "ours": 1.0, "slow": 3.0}


@pytest.fixture
def ways(monkeypatch):
    """Ways that say who ran, and a clock that reads TIMES."""
    ran = []
    ways = {name: lambda x, name=name: ran.append(name) or x for name in TIMES}
    names = {way: name for name, way in ways.items()}
    monkeypatch.setattr(module, "_found", {})
    monkeypatch.setattr(module, "_can_measure", lambda arguments: True)
    monkeypatch.setattr(module, "seconds", lambda way, arguments: TIMES[names[way]])
    return ways, ran


def test_the_fastest_runs_and_is_measured_once_for_each_shape(ways, monkeypatch):
    ways, ran = ways
    module.fastest("op", ways, (torch.zeros(2, 3),))
    monkeypatch.setattr(module, "seconds", None)
    module.fastest("op", ways, (torch.ones(2, 3),))
    assert ran == ["ours", "ours"] and list(module.found().values()) == ["ours"]
    with pytest.raises(TypeError):  # another shape asks the clock
        module.fastest("op", ways, (torch.zeros(3, 2),))


def test_a_way_that_fails_is_left_out(ways, monkeypatch):
    ways, ran = ways
    clock = module.seconds

    def seconds(way, arguments):
        if way is ways["ours"]:
            raise RuntimeError("out of shared memory")
        return clock(way, arguments)

    monkeypatch.setattr(module, "seconds", seconds)
    module.fastest("op", ways, (torch.zeros(2),))
    assert ran == ["library"]


def test_what_cannot_be_measured_runs_the_library_and_is_measured_later(ways, monkeypatch):
    ways, ran = ways
    monkeypatch.setattr(module, "_can_measure", lambda arguments: False)
    module.fastest("op", ways, (torch.zeros(2),))
    monkeypatch.setattr(module, "_can_measure", lambda arguments: True)
    module.fastest("op", ways, (torch.zeros(2),))
    assert ran == ["library", "ours"]


def test_nothing_is_measured_on_a_cpu():
    assert not module._can_measure((torch.zeros(2),))
