"""Where a step's time goes on a GPU, as docs/performance.md has it, drawn from the results file."""

from __future__ import annotations

from pathlib import Path

from . import plots
from .report import Report
from .results import Results


def table(results: Results) -> str:
    """Milliseconds of a step by kind of kernel, a line an engine."""
    kinds, engines = _kinds(results), _engines(results)
    lines = [f"| kernels of | {' | '.join(kinds)} | in all |", "| --- " * (len(kinds) + 2) + "|"]
    for engine, parts in engines.items():
        cells = " | ".join(plots.three_digits(parts[kind]) for kind in kinds)
        lines.append(f"| {engine} | {cells} | {plots.three_digits(sum(parts.values()))} ms |")
    gpu = results.machine.get("cuda:0", "a GPU")
    return "\n".join([*lines, "", f"Measured on {gpu}, at commit {results.commit}."])


def draw(results: Results, path: Path) -> None:
    """A bar an engine."""
    plots.stacked_bars(
        {"sd15": _engines(results)}, _kinds(results), "ms of kernels a step of three rows", path, results
    )


def _kinds(results: Results) -> list[str]:
    """The longest first."""
    kinds: dict[str, float] = {}
    for parts in _engines(results).values():
        for kind, value in parts.items():
            kinds[kind] = kinds.get(kind, 0.0) + value
    return sorted(kinds, key=kinds.__getitem__, reverse=True)


def _engines(results: Results) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for row in results.rows:
        engine, kind = row.id.split(".")[2:]
        found.setdefault(engine, {})[kind.replace("_", " ")] = 1e3 * row.value
    every = {kind for parts in found.values() for kind in parts}
    return {engine: {kind: parts.get(kind, 0.0) for kind in every} for engine, parts in found.items()}


REPORT = Report(
    "gpu-breakdown", "gpu-breakdown", Path("docs/performance.md"), table, Path("docs/performance_gpu.png"), draw
)
