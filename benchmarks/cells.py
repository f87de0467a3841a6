"""Which cells of the matrix are measured in a given time, and how often each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

FEWEST, MOST = 3, 40
"""Rounds of a cell."""


@dataclass(frozen=True)
class Cell:
    """Pictures of size x size, edits in a batch, steps of each edit."""

    size: int
    batch: int
    steps: int

    def __str__(self) -> str:
        return f"{self.size}x{self.size}, batch {self.batch}, {self.steps} steps"


def by_importance(sizes: Sequence[int], batches: Sequence[int], steps: Sequence[int]) -> list[Cell]:
    """All combinations: first that of the first of each, then those that leave it in one respect, in two, in three."""
    axes = (sizes, batches, steps)
    places = product(*(range(len(axis)) for axis in axes))
    ordered = sorted(places, key=lambda place: (sum(index > 0 for index in place), sum(place)))
    return [Cell(*(axis[index] for axis, index in zip(axes, place, strict=True))) for place in ordered]


def rounds_in(round_seconds: float, seconds_left: float, cells_left: int) -> int:
    """Rounds of a cell, so that it takes its share of the time that is left; FEWEST even where there is too little."""
    return max(FEWEST, min(MOST, int(seconds_left / max(1, cells_left) / max(round_seconds, 1e-9))))


def heats(peaks_gb: Mapping[str, float], room_gb: float, reference: str) -> list[list[str]]:
    """Contestants in groups that fit in memory together, each with the reference, in the order they are given.

    One that does not fit even with the reference alone has a group all the same: its process's peak, with what loading
    took, is more than it keeps.
    """
    others = [key for key in peaks_gb if key != reference]
    groups = [[reference]]
    for key in others:
        taken = sum(peaks_gb[member] for member in groups[-1])
        if len(groups[-1]) > 1 and taken + peaks_gb[key] > room_gb:
            groups.append([reference])
        groups[-1].append(key)
    return groups
