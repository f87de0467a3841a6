"""The load figures as docs/serving.md has them: a table and a plot, both drawn from the results file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ip2p_fast.errors import BadInput

from .. import plots
from ..report import Report
from ..results import Results
from .contenders import LOADS, NAMES, POLICIES

SUITE = "cpu-serving"


def table(results: Results) -> str:
    """Latency by load and policy."""
    lines = ["| load | batching | p50 | p95 | p99 | requests |", "| --- | --- | --- | --- | --- | --- |"]
    for load, latencies in _latencies(results).items():
        for name in POLICIES:
            found = latencies[name]
            seconds = " | ".join(f"{found[p]:.2f} s" for p in ("p50", "p95", "p99"))
            lines.append(f"| {load}% | {NAMES[name]} | {seconds} | {found['requests']} |")
    return "\n".join(lines)


def draw(results: Results, path: Path) -> None:
    """p50 and p99 over load."""
    latencies = _latencies(results)
    figure, axes = plots.subplots(figsize=(7, 4))
    for name, colour in zip(POLICIES, ("tab:blue", "tab:orange", "tab:gray"), strict=True):
        for percentile, style in (("p99", "-"), ("p50", ":")):
            seconds = [latencies[load][name][percentile] for load in LOADS]
            axes.plot(LOADS, seconds, style, marker="o", color=colour, label=f"{NAMES[name]}, {percentile}")
    axes.set(yscale="log", xticks=LOADS, xlabel="load, % of the capacity of step-level batching", ylabel="latency, s")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    plots.save(figure, path, results)


def _latencies(results: Results) -> dict[int, Any]:
    rows = {row.id: row for row in results.rows}
    try:
        return {load: rows[f"cpu.serving.p99_at_{load}.vs_better"].detail["latency_s"] for load in LOADS}
    except KeyError as error:
        raise BadInput(f"{SUITE}: {error} is missing; run ip2p-fast bench {SUITE}") from None


REPORT = Report(SUITE, "load", Path("docs/serving.md"), table, Path("docs/serving_load.png"), draw)
