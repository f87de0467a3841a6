"""Timing of contenders side by side: in turns, so that a machine that slows down slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Work = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """The 20th, 50th and 80th percentile of some values."""

    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Percentiles by linear interpolation."""
        return cls(*(float(value) for value in np.percentile(np.asarray(values, np.float64), (20, 50, 80))))

    def as_json(self) -> dict[str, float]:
        return {"p20": self.p20, "p50": self.p50, "p80": self.p80}


@dataclass(frozen=True)
class Told:
    """What work returns that is another program, and tells its own time without its start and loading."""

    seconds: float


@dataclass(frozen=True)
class Timing:
    """Seconds of each timed call, and of the untimed first one, which pays for warm-up and compilation."""

    seconds: tuple[float, ...]
    first: float

    @property
    def spread(self) -> Spread:
        return Spread.of(self.seconds)

    def as_json(self) -> dict[str, Any]:
        return {**self.spread.as_json(), "first": self.first, "rounds": len(self.seconds)}


def interleave(
    contenders: Mapping[str, Work],
    rounds: int,
    warmup: int = 2,
    synchronize: Callable[[], None] = lambda: None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Timing]:
    """Calls every contender once a round, each round beginning with another one, so that none always follows the same.

    Args:
        rounds: timed rounds, at least 1.
        warmup: untimed calls of each before them, at least 1; the first is reported apart.
        synchronize: waits for work that a call only started, as on a GPU.
        watch: told (rounds done, rounds in all), warm-up not counted.
    """
    names = list(contenders)
    first: dict[str, float] = {}
    for name in names:
        first[name] = _seconds(contenders[name], synchronize)
        for _ in range(warmup - 1):
            _seconds(contenders[name], synchronize)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for done in range(rounds):
        turn = done % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(_seconds(contenders[name], synchronize))
        watch(done + 1, rounds)
    return {name: Timing(tuple(seconds[name]), first[name]) for name in names}


def ratio(slower: Timing, faster: Timing) -> Spread:
    """How many times longer the first takes, from the pairs of one round: what disturbs a round disturbs both."""
    return Spread.of([a / b for a, b in zip(slower.seconds, faster.seconds, strict=True)])


def _seconds(work: Work, synchronize: Callable[[], None]) -> float:
    synchronize()
    start = time.perf_counter()
    told = work()
    synchronize()
    return told.seconds if isinstance(told, Told) else time.perf_counter() - start
