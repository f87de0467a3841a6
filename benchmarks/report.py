"""A report: what a document shows of one results file, a table between marker lines and a plot beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .results import Results


@dataclass(frozen=True)
class Report:
    """
    suite     the results file's name
    word      of the marker lines: <!-- WORD:begin --> and <!-- WORD:end -->
    document  its path in the checkout
    table     Markdown of the results
    plot      its path in the checkout, where there is one
    draw      writes it, by `plots.save`
    """

    suite: str
    word: str
    document: Path
    table: Callable[[Results], str]
    plot: Path | None = None
    draw: Callable[[Results, Path], None] | None = None

    @property
    def begin(self) -> str:
        return f"<!-- {self.word}:begin -->"

    @property
    def end(self) -> str:
        return f"<!-- {self.word}:end -->"
