"""Two results files side by side: what moved, and what only wavered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ip2p_fast.errors import BadInput

from .results import Results, Row

_RESAMPLES, _CONFIDENCE = 2000, 95
_FEWEST = 3
NOISE = 0.03
"""A change of less than this share of the value is none, whatever the spreads say."""


@dataclass(frozen=True)
class Change:
    """One figure, before and after; None where one file has it alone.

    share  of the value before by which it changed, None where that is 0 or absent
    moved  beyond noise: by more than NOISE, and where both files have its samples, with 1 outside the interval of the
           ratio of medians; where they only have its p20 and p80, with these apart
    worse  moved to the side that is not `better`
    """

    id: str
    unit: str
    before: float | None
    after: float | None
    share: float | None
    moved: bool
    worse: bool


def compare(before: Results, after: Results, any_machine: bool = False) -> list[Change]:
    """Every figure of either file, in the order of the second, then those that are gone.

    Raises BadInput for files of different machines, whose figures say nothing of the code, and for trials.
    """
    if before.quick or after.quick:
        raise BadInput("one of the files is a --quick trial, whose figures mean nothing")
    differ = [name for name in _MACHINE if before.machine.get(name) != after.machine.get(name)]
    if differ and not any_machine:
        told = "; ".join(f"{name}: {before.machine.get(name)} and {after.machine.get(name)}" for name in differ)
        raise BadInput(f"the files are of different machines ({told}): measure both on one, or say --any-machine")
    olds, news = ({row.id: row for row in results.rows} for results in (before, after))
    return [_change(olds, news, name) for name in dict.fromkeys([*news, *olds])]


def ratio_interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of median(after) / median(before), by the percentile bootstrap (Efron 1979) of a fixed seed."""
    random = np.random.default_rng(0)
    medians = [
        np.median(random.choice(np.asarray(samples, np.float64), (_RESAMPLES, len(samples))), axis=1)
        for samples in (before, after)
    ]
    tail = (100 - _CONFIDENCE) / 2
    low, high = np.percentile(medians[1] / medians[0], (tail, 100 - tail))
    return float(low), float(high)


# the load is of the moment, and memory differs by what the kernel keeps
_MACHINE = ("cpu", "cuda", "threads", "isa", "extension")


def _change(olds: Mapping[str, Row], news: Mapping[str, Row], name: str) -> Change:
    old, new = olds.get(name), news.get(name)
    row = new or old
    assert row is not None
    if old is None or new is None:
        before, after = None if old is None else old.value, None if new is None else new.value
        return Change(name, row.unit, before, after, None, moved=False, worse=False)
    share = (new.value - old.value) / abs(old.value) if old.value else None
    moved = old.value != new.value if share is None else abs(share) > NOISE
    moved = moved and not _same(old, new)
    worse = moved and (new.value < old.value) == (row.better == "higher")
    return Change(name, row.unit, old.value, new.value, share, moved, worse)


def _same(old: Row, new: Row) -> bool:
    """Whether what was measured allows that nothing changed; False where there is but a value."""
    if all(len(row.detail.get("samples", ())) >= _FEWEST for row in (old, new)):
        low, high = ratio_interval(old.detail["samples"], new.detail["samples"])
        return low <= 1 <= high
    if not all(name in row.detail for row in (old, new) for name in ("p20", "p80")):
        return False
    return bool(old.detail["p20"] <= new.detail["p80"] and new.detail["p20"] <= old.detail["p80"])
