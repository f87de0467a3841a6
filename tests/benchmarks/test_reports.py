"""Reports: a table in a document and a plot beside it, of the results and of no others."""

import shutil

import pytest

from ip2p_fast.benchmarks import breakdown_report, plots
from ip2p_fast.benchmarks.breakdown_kinds import KINDS
from ip2p_fast.benchmarks.results import Row, write_results
from ip2p_fast.benchmarks.serving.contenders import LOADS, POLICIES
from ip2p_fast.benchmarks.stage_names import STAGES
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


def matrix(model):
    titles = (("exact", "ours (float32)", 6.0), ("diffusers", "diffusers (float32)", 2.0))
    name = f"cpu.matrix.{model}"
    rows = [
        Row(
            f"{name}.64.{batch}.20.{key}",
            speed,
            "edits/s",
            "higher",
            None,
            {
                "title": title,
                "cell": {"size": 64, "batch": batch, "steps": 20},
                "p20": speed - 0.5,
                "p80": speed + 0.5,
                "latency_s": {"p50": 1 / speed, "p95": 0.75, "p99": 1.25, "first": 2.0, "calls": 5},
                "ceiling_share": 0.25,
            },
        )
        for batch in (1, 4)
        for key, title, speed in titles
    ]
    for figure, value, unit in (("first_edit", 3.5, "s"), ("compile", 0.125, "s"), ("memory", 2.0, "GB")):
        rows += [
            Row(f"{name}.{figure}.{key}", value, unit, "lower", None, {"title": title}) for key, title, _ in titles
        ]
    not_run = {"TensorRT": "not installed", "96x96, batch 1, 20 steps": "no time"}
    return [*rows, Row(f"{name}.not_run", 2.0, "count", "lower", None, {"not_run": not_run})]


def stages():
    return [
        Row(
            f"cpu.stages.pocket.{key}.{stage.lower().replace(' ', '_')}",
            float(number + 1),
            "ms",
            "lower",
            None,
            {"what": stage, "stage": stage, "edit_ms": 15.0, "title": title, "model": "pocket, 64x64, 20 steps"},
        )
        for key, title in (("diffusers", "diffusers (float32)"), ("int8", "ours (int8)"))
        for number, stage in enumerate(STAGES)
    ]


def gpu_breakdown():
    seconds = {"ours": {"attention": 0.001, "convolutions": 0.003}, "diffusers": {"attention": 0.0015, "others": 0.002}}
    return [
        Row(f"gpu.breakdown.{engine}.{kind}", value, "s", "lower", None, {"what": kind})
        for engine, kinds in seconds.items()
        for kind, value in kinds.items()
    ]


ROWS = {
    "gpu-breakdown": gpu_breakdown(),
    "cpu-breakdown": breakdown(),
    "cpu-serving": load(),
    "cpu-stages": stages(),
    "cpu-tried": [Row("cpu.tried.it", 0.25, "share", "higher", None, {"what": "of all", "tried": "it", "kept": "not"})],
    "cpu-matrix": matrix("pocket"),
    "cpu-matrix-sd15": matrix("sd15"),
}


@pytest.fixture
def checkout(tmp_path):
    """A folder with a document for every report, and results of each."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n")
    for report in REPORTS:
        with (tmp_path / report.document).open("a") as document:  # some share one
            document.write(f"Before.\n\n{report.begin}\n{report.end}\n")
        write_results(tmp_path / "results" / f"{report.suite}.json", ROWS[report.suite], rerun="ip2p-fast bench")
    return tmp_path


def test_tables_and_plots_are_drawn_once(checkout):
    changed = {path.relative_to(checkout) for path in write_tables(checkout, checkout / "results")}
    assert changed >= {path for report in REPORTS for path in (report.document, report.plot) if path}
    assert write_tables(checkout, checkout / "results") == []
    check_tables(checkout, checkout / "results")
    performance, serving = ((checkout / "docs" / name).read_text() for name in ("performance.md", "serving.md"))
    assert "| pocket, ours (int8) | 1 | 2 | 3 | 4 | 5 | 6 | 21 ms |" in performance
    assert "| pocket, 64x64, 20 steps: ours (int8) | 1 | 2 | 3 | 4 | 5 | 15 ms |" in performance
    assert "| 80% | step-level batching | 0.25 s | 0.50 s | 1.00 s | 40 |" in serving
    assert "| 64x64, 4, 20 | 6 | 2 |" in performance
    assert "| diffusers (float32) | 500 ms | 750 ms | 1.25 s | 25% | 3.5 s | 125 ms | 2.00 GB |" in performance
    assert "| it | 25.0%: of all | not |" in performance
    assert "Not run: TensorRT (not installed); 96x96, batch 1, 20 steps (no time)." in performance


def test_a_plot_of_other_results_is_found(checkout):
    write_tables(checkout, checkout / "results")
    kept = shutil.copy(checkout / breakdown_report.REPORT.plot, checkout / "kept.png")
    write_results(checkout / "results" / "cpu-breakdown.json", breakdown(2.0), rerun="ip2p-fast bench")
    write_tables(checkout, checkout / "results")
    shutil.copy(kept, checkout / breakdown_report.REPORT.plot)
    with pytest.raises(BadInput, match=r"performance.png .* differ: run ip2p-fast bench table"):
        check_tables(checkout, checkout / "results")


def test_a_file_that_is_no_plot_is_of_no_results(tmp_path):
    results = write_results(tmp_path / "a.json", breakdown(), rerun="ip2p-fast bench")
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert not plots.is_of(tmp_path / "a.png", results)
    assert not plots.is_of(tmp_path / "absent.png", results)
