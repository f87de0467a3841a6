"""`ip2p-fast bench`: what it is asked, what it writes. Its figures are never judged here."""

import pytest

from ip2p_fast.benchmarks import suites
from ip2p_fast.benchmarks.ceilings import unet_gflop
from ip2p_fast.benchmarks.random_model import SD15
from ip2p_fast.benchmarks.results import Row, read_results
from ip2p_fast.benchmarks.suites import SUITES, Suite
from ip2p_fast.benchmarks.table import RESULTS
from ip2p_fast.cli import main


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture
def measured(monkeypatch, no_gpu):
    """Suites that measure nothing but who was asked, with what."""
    asked = []

    def run(suite, bench):
        asked.append((suite.name, bench.device, bench.quick, bench.model))
        return [Row("a.b", 1.0, "x", "higher")]

    monkeypatch.setattr(Suite, "run", run)
    return asked


def test_names_choose_what_is_measured(measured, tmp_path, capsys):
    assert main(["bench", "cpu-sd15", "cpu-pocket", "--out", str(tmp_path), "--model", "folder"]) == 0
    assert measured == [("cpu-sd15", "cpu", False, "folder"), ("cpu-pocket", "cpu", False, "folder")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu-pocket.json", "cpu-sd15.json"]
    assert read_results(tmp_path / "cpu-sd15.json").rerun == "ip2p-fast bench cpu-sd15"
    assert "a.b" in capsys.readouterr().out


def test_no_name_means_all_that_this_machine_can_run(measured, tmp_path):
    assert main(["bench", "--out", str(tmp_path)]) == 0
    assert [name for name, *_ in measured] == [name for name in SUITES if name.startswith("cpu-")]


def test_a_quick_trial_runs_gpu_suites_on_the_cpu_and_says_so_in_its_file(measured, tmp_path):
    assert main(["bench", "gpu-step", "--quick", "--out", str(tmp_path)]) == 0
    assert measured == [("gpu-step", "cpu", True, "pocket")]
    assert read_results(tmp_path / "gpu-step.json").quick


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["cpu-nothing"], "cpu-nothing"),
        (["gpu-step"], "CUDA"),
        (["cpu-sd15", "--quick", "--out", str(RESULTS)], "real figures"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(measured, capsys, arguments, said):
    assert main(["bench", *arguments]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1
    assert measured == []


def test_every_suite_has_its_function():
    for suite in SUITES.values():
        module = suites.import_module(f".{suite.module}", suites.__package__)
        assert callable(getattr(module, suite.measure))


@pytest.mark.slow
def test_a_guided_step_is_measured_at_a_tiny_size(tmp_path):
    assert main(["bench", "cpu-sd15", "--quick", "--out", str(tmp_path)]) == 0
    rows = {row.id: row for row in read_results(tmp_path / "cpu-sd15.json").rows}
    best = next(name for name in ("torch", "openvino") if rows[f"cpu.sd15.step.{name}.vs_diffusers_fp32"].target)
    targets = {peer: rows[f"cpu.sd15.step.{best}.vs_{peer}"].target for peer in ("diffusers_bf16", "plain_openvino")}
    assert targets == {"diffusers_bf16": 2.2, "plain_openvino": 1.0}
    assert rows["cpu.sd15.step.int8.vs_diffusers_fp32"].target == 4.5
    assert all(
        rows[f"cpu.sd15.step.image_guidance_1_vs_1_5.{dtype}"].better == "lower" for dtype in ("float32", "auto")
    )
    assert all(row.value > 0 for row in rows.values())


def test_the_arithmetic_of_the_unet_is_counted_in_full():
    assert unet_gflop(SD15, latents=32, rows=3) == pytest.approx(540, rel=0.01)
