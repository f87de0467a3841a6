"""Contenders take turns, and percentiles are what they are called."""

import pytest

from ip2p_fast.benchmarks import timing
from ip2p_fast.benchmarks.timing import Spread, Timing, interleave, ratio


def test_every_round_calls_all_and_begins_with_another():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}
    timings = interleave(contenders, rounds=4, warmup=2)
    assert "".join(calls) == "aabbcc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 4, "b": 4, "c": 4}


def test_the_first_call_is_told_apart_and_waiting_is_counted(monkeypatch):
    """A clock that only work and waiting move on."""
    now = 0.0
    costs = iter([100.0, 1.0, 2.0, 3.0])

    def work():
        nonlocal now
        now += next(costs)

    def synchronize():
        nonlocal now
        now += 0.5

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    seen = []
    timings = interleave({"a": work}, 3, 1, synchronize, lambda done, total: seen.append((done, total)))
    assert timings["a"] == Timing(seconds=(1.5, 2.5, 3.5), first=100.5)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_percentiles():
    assert Spread.of(range(11)) == Spread(2.0, 5.0, 8.0)
    assert Spread.of([4.0]) == Spread(4.0, 4.0, 4.0)
    assert Spread.of([2, 1]).p50 == pytest.approx(1.5)


def test_a_ratio_is_of_the_pairs_of_a_round():
    # the machine was three times slower in the second round, for both
    slow, fast = Timing((4.0, 12.0, 4.0), 9.0), Timing((2.0, 6.0, 2.0), 9.0)
    assert ratio(slow, fast) == Spread(2.0, 2.0, 2.0)
