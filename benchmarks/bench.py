"""What every suite is given: where to run, how long, and whom to tell how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _nobody(what: str, done: int, total: int) -> None:
    """Hears of progress and does nothing."""


@dataclass(frozen=True)
class Bench:
    """
    quick   tiny sizes and few rounds: shows that a suite runs, its figures mean nothing
    device  "cpu" or "cuda"
    model   the pocket model: "pocket" or a folder
    watch   told (what is being measured, rounds done, rounds in all)
    """

    quick: bool = False
    device: str = "cpu"
    model: str = "pocket"
    watch: Callable[[str, int, int], None] = _nobody

    def rounds(self, full: int) -> int:
        return 2 if self.quick else full

    def watching(self, what: str) -> Callable[[int, int], None]:
        self.watch(what, 0, 0)
        return lambda done, total: self.watch(what, done, total)
