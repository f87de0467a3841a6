"""The matrix, with contestants that only sleep: who is run, what is told of it, and of what was not run."""

import time
from dataclasses import replace

import pytest

from ip2p_fast.benchmarks import matrix, matrix_command, matrix_report
from ip2p_fast.benchmarks.bench import Bench
from ip2p_fast.benchmarks.contestants import Contestant, Job, absent, contestants
from ip2p_fast.benchmarks.energy import SECONDS, joules
from ip2p_fast.benchmarks.matrix import Asked, measure_matrix
from ip2p_fast.benchmarks.matrix_model import MatrixModel
from ip2p_fast.benchmarks.own_process import FirstEdit
from ip2p_fast.benchmarks.random_model import TINY
from ip2p_fast.cli import main

SIZES = (64, 128)


def sleeper(seconds):
    """Edits that take a time a step."""
    return lambda job: lambda settings, count: time.sleep(seconds * settings.steps * count)


def broken(job):
    raise RuntimeError("this one\ncannot load")


LISTED = [
    Contestant("exact", "ours (float32)", "float32", sleeper(1e-5)),
    Contestant("slow", "peer (float32)", "float32", sleeper(2e-4)),
    Contestant("student", "student (float32)", "float32", sleeper(1e-6), rows=1, steps=4),
    Contestant("broken", "broken", "float32", broken),
    Contestant("unconverted", "unconverted", "float32", sleeper(1e-6), prepare=broken),
    Contestant("absent", "absent", "float32", sleeper(1e-6), needs=("a_package_that_is_not_there",)),
]


@pytest.fixture
def rows(monkeypatch):
    """A function that measures, first edits in this process."""

    def first(open_engine, device):
        open_engine()()
        return FirstEdit(0.5, 0.75, 0.25, 1.0)

    model = MatrixModel("tiny", "folder", SIZES, 7.5, 1.5, TINY.unet)
    monkeypatch.setattr(matrix, "first_edit", first)
    monkeypatch.setattr(matrix, "matrix_model", lambda *asked: model)
    monkeypatch.setattr(matrix, "contestants", lambda job: LISTED)
    monkeypatch.setattr(matrix, "matmul_ceiling", lambda *asked: {"gflops": 100.0})

    def measured(**asked):
        found = measure_matrix(Bench(), Asked(batches=(1, 2), steps=(3,), **asked))
        return {row.id: row for row in found}

    return measured


def test_every_contestant_takes_turns_in_every_cell(rows):
    found = rows(minutes=10.0)
    for size in SIZES:
        for batch in (1, 2):
            speeds = {key: found[f"cpu.matrix.tiny.{size}.{batch}.3.{key}"] for key in ("exact", "slow", "student")}
            assert speeds["slow"].value < speeds["exact"].value
            assert speeds["slow"].detail["times_of_exact"] > 1 == speeds["exact"].detail["times_of_exact"]
            assert len({len(row.detail["samples"]) for row in speeds.values()}) == 1
    assert found["cpu.matrix.tiny.first_edit.slow"].value == 1.25
    assert found["cpu.matrix.tiny.compile.slow"].value == 0.5
    assert found["cpu.matrix.tiny.memory.slow"].value == 1.0


def test_arithmetic_is_that_of_the_rows_and_steps_of_each(rows):
    found = rows(minutes=0.0)
    exact, student = (found[f"cpu.matrix.tiny.64.1.3.{key}"].detail for key in ("exact", "student"))
    per_edit = [one["unet_gflop_per_s"] * one["latency_s"]["p50"] for one in (exact, student)]
    assert per_edit[0] / per_edit[1] == pytest.approx(3 * 3 / 4, rel=1e-6)
    assert exact["ceiling_share"] == pytest.approx(exact["unet_gflop_per_s"] / 100)


def test_what_was_not_run_is_listed_with_its_reason(rows):
    not_run = rows(minutes=0.0)["cpu.matrix.tiny.not_run"]
    assert not_run.detail["not_run"] == {
        "absent": "a_package_that_is_not_there not installed",
        "unconverted": "RuntimeError: this one",
        "broken": "RuntimeError: this one",
        "128x128, batch 1, 3 steps": "no time",
        "64x64, batch 2, 3 steps": "no time",
        "128x128, batch 2, 3 steps": "no time",
    }
    assert not_run.value == 6


def test_energy_is_the_mean_of_calls_long_enough_for_the_counter(monkeypatch):
    now, energy = 0.0, 0.0

    def work():
        nonlocal now, energy
        now += 0.3
        energy += 12.0

    monkeypatch.setattr("time.perf_counter", lambda: now)
    assert joules(work, lambda: energy, lambda: None) == pytest.approx(12.0)
    assert now >= SECONDS


@pytest.mark.parametrize("device, only", [("cpu", "openvino"), ("cuda", "tensorrt")])
def test_a_peer_that_is_not_installed_does_not_take_part(monkeypatch, tmp_path, device, only):
    job = Job("folder", tmp_path, device, "bfloat16", sd_cpp=tmp_path)
    listed = {one.key: one for one in contestants(job)}
    assert {"exact", "student", "diffusers", "diffusers_compiled", "onnxruntime", only} < listed.keys()
    assert listed["stable_diffusion_cpp"] and "stable_diffusion_cpp" not in {
        one.key for one in contestants(replace(job, sd_cpp=None))
    }
    monkeypatch.setattr("ip2p_fast.benchmarks.contestants.find_spec", lambda name: None)
    assert absent(listed[only]).startswith(only)
    assert absent(listed["exact"]) is None


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--batches", "1,x"], "--batches '1,x'"),
        (["--steps", "4,4"], "--steps '4,4'"),
        (["--sizes", "0"], "--sizes '0'"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--quick", "--out", str(matrix_command.RESULTS)], "real figures"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(capsys, arguments, said):
    assert main(["bench", "matrix", *arguments]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1


def test_a_results_file_is_named_by_device_and_model():
    assert matrix_report.suite("cpu", "pocket") == "cpu-matrix"
    assert matrix_report.suite("gpu", "timbrooks/instruct-pix2pix") == "gpu-matrix-instruct-pix2pix"


@pytest.mark.slow
def test_the_command_runs_every_installed_peer_on_a_tiny_model(tmp_path, capsys):
    assert main(["bench", "matrix", "--quick", "--out", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"cpu-matrix.json", "cpu-matrix.md", "cpu-matrix.png"}
    assert "Not run: nothing." in (tmp_path / "cpu-matrix.md").read_text()
