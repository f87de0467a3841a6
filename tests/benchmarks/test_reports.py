"""Reports: a table in a document and a plot beside it, of the results and of no others."""

import shutil

import pytest

from ip2p_fast.benchmarks import breakdown_report, matrix_report, plots
from ip2p_fast.benchmarks.breakdown_kinds import KINDS
from ip2p_fast.benchmarks.results import Row, write_results
from ip2p_fast.benchmarks.serving import report as load_report
from ip2p_fast.benchmarks.serving.contenders import LOADS, POLICIES
from ip2p_fast.benchmarks.table import BEGIN, END, REPORTS, check_tables, write_tables
from ip2p_fast.errors import BadInput


def breakdown(scale=1.0):
    return [
        Row(
            f"cpu.breakdown.pocket.{key}.{kind.replace(' ', '_')}",
            scale * (number + 1),
            "ms",
            "lower",
            None,
            {"what": kind, "step_ms": 21.0 * scale, "title": title},
        )
        for key, title in (("diffusers", "diffusers (float32)"), ("int8", "ours (int8)"))
        for number, kind in enumerate(KINDS)
    ]


def load():
    latency = {"p50": 0.25, "p95": 0.5, "p99": 1.0, "requests": 40}
    return [
        Row(
            f"cpu.serving.p99_at_{at}.vs_better",
            0.5,
            "x",
            "lower",
            None,
            {"latency_s": dict.fromkeys(POLICIES, latency)},
        )
        for at in LOADS
    ]


def matrix():
    return [
        Row(
            f"cpu.matrix.64.{batch}.{key}",
            speed,
            "edits/s",
            "higher",
            None,
            {"title": title, "p20": speed - 0.5, "p80": speed + 0.5},
        )
        for batch in (1, 4)
        for key, title, speed in (("diffusers", "diffusers (float32)", 2.0), ("exact", "ours (auto)", 6.0))
    ]


@pytest.fixture
def checkout(tmp_path):
    """A folder with a document for every report, and results of each."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n")
    for report, rows in ((breakdown_report, breakdown()), (load_report, load()), (matrix_report, matrix())):
        with (tmp_path / report.DOCUMENT).open("a") as document:  # two reports share one
            document.write(f"Before.\n\n{report.BEGIN}\n{report.END}\n")
        write_results(tmp_path / "results" / f"{report.SUITE}.json", rows, rerun="ip2p-fast bench")
    return tmp_path


def test_tables_and_plots_are_drawn_once(checkout):
    changed = {path.relative_to(checkout) for path in write_tables(checkout, checkout / "results")}
    assert changed >= {path for report in REPORTS for path in (report.DOCUMENT, report.PLOT)}
    assert write_tables(checkout, checkout / "results") == []
    check_tables(checkout, checkout / "results")
    assert (
        "| pocket, ours (int8) | 1 | 2 | 3 | 4 | 5 | 6 | 21 ms |" in (checkout / breakdown_report.DOCUMENT).read_text()
    )
    assert (
        "| 80% | step-level batching | 0.25 s | 0.50 s | 1.00 s | 40 |" in (checkout / load_report.DOCUMENT).read_text()
    )


def test_a_plot_of_other_results_is_found(checkout):
    write_tables(checkout, checkout / "results")
    kept = shutil.copy(checkout / breakdown_report.PLOT, checkout / "kept.png")
    write_results(checkout / "results" / "cpu-breakdown.json", breakdown(2.0), rerun="ip2p-fast bench")
    write_tables(checkout, checkout / "results")
    shutil.copy(kept, checkout / breakdown_report.PLOT)
    with pytest.raises(BadInput, match=r"performance.png .* differ: run ip2p-fast bench table"):
        check_tables(checkout, checkout / "results")


def test_a_file_that_is_no_plot_is_of_no_results(tmp_path):
    results = write_results(tmp_path / "a.json", breakdown(), rerun="ip2p-fast bench")
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert not plots.is_of(tmp_path / "a.png", results)
    assert not plots.is_of(tmp_path / "absent.png", results)
