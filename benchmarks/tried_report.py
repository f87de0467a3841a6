"""What was tried and not kept, as docs/performance.md has it: a line a figure."""

from __future__ import annotations

from pathlib import Path

from . import plots
from .report import Report
from .results import Results


def table(results: Results) -> str:
    """What was tried, what it gave, what is done instead."""
    lines = ["| tried | gave | instead |", "| --- | --- | --- |"]
    for row in results.rows:
        value = f"{100 * row.value:.1f}%" if row.unit == "share" else f"{plots.three_digits(row.value)}{row.unit}"
        lines.append(f"| {row.detail['tried']} | {value}: {row.detail['what']} | {row.detail['kept']} |")
    return "\n".join(lines)


REPORT = Report("cpu-tried", "tried", Path("docs/performance.md"), table)
