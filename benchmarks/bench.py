"""What every suite is given: where to run, how long, and whom to tell how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def _nobody(what: str, done: int, total: int) -> None:
    """Hears of progress and does nothing."""


@dataclass(frozen=True)
class Bench:
    """
    quick   tiny sizes and few rounds: shows that a suite runs, its figures mean nothing
    device  "cpu" or "cuda"
    model   the pocket model: "pocket" or a folder
    watch   told (what is being measured, rounds done, rounds in all)
    minutes how long a suite that sends load sends it; None: its own length
    """

    quick: bool = False
    device: str = "cpu"
    model: str = "pocket"
    watch: Callable[[str, int, int], None] = _nobody
    minutes: float | None = None

    def rounds(self, full: int) -> int:
        return 2 if self.quick else full

    def watching(self, what: str) -> Callable[[int, int], None]:
        self.watch(what, 0, 0)
        return lambda done, total: self.watch(what, done, total)


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr that goes when it is done; nothing where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)
