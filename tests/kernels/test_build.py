"""setup.py's build gate, without compiling: what it decides, says and records."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ip2p_fast import build_info as recorded
from ip2p_fast.kernels import status

ROOT = Path(__file__).parents[2]


def build(folder, choice, **environment):
    """Run build_ext in a scratch folder; returns the process and the record it left, or None."""
    run = subprocess.run(
        [sys.executable, "setup.py", "build_ext", f"--build-lib={folder}/lib", f"--build-temp={folder}/temp"],
        cwd=ROOT,
        env={**os.environ, "IP2P_FAST_BUILD": choice, **environment},
        capture_output=True,
        text=True,
    )
    record = folder / "lib" / "ip2p_fast" / "_build.json"
    return run, json.loads(record.read_text()) if record.exists() else None


def test_none_builds_nothing(tmp_path):
    run, record = build(tmp_path, "none")
    assert run.returncode == 0 and record == {"extension": "none", "why": "IP2P_FAST_BUILD=none"}
    assert not list(tmp_path.rglob("*.so"))


def test_auto_goes_on_without_a_compiler(tmp_path):
    run, record = build(tmp_path, "auto", CXX="no-such-compiler")
    assert run.returncode == 0, run.stderr
    assert record["extension"] == "none" and "no-such-compiler is not on PATH" in record["why"]


def test_auto_goes_on_with_a_broken_compiler(tmp_path):
    run, record = build(tmp_path, "auto", CXX="false")
    assert run.returncode == 0, run.stderr
    assert record["extension"] == "none" and "the build failed" in record["why"]
    assert "the build failed" in run.stdout + run.stderr


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_an_explicit_choice_that_cannot_be_met_fails(tmp_path, compiler):
    run, record = build(tmp_path, "cpu", CXX=compiler)
    assert run.returncode != 0 and record is None
    assert "IP2P_FAST_BUILD=cpu cannot be met" in run.stdout + run.stderr


def test_an_unknown_choice_fails(tmp_path):
    run, _ = build(tmp_path, "gpu")
    assert run.returncode != 0 and "choose auto, cuda, cpu or none" in run.stdout + run.stderr


def test_a_build_without_torch_is_none(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    run, record = build(tmp_path, "auto", PYTHONPATH=str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert record["extension"] == "none" and "--no-build-isolation" in record["why"]


def test_a_damaged_record_is_no_extension(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RECORD", tmp_path / "_build.json")
    assert recorded.build_info()["extension"] == "none"
    recorded.RECORD.write_text("{")
    assert "cannot be read" in recorded.build_info()["why"]


def test_status_says_what_runs_and_why():
    now = status()
    assert now["extension"] in ("none", "cpu", "cuda") and now["why"]
    for name, devices in now["kernels"].items():
        in_cpp = now["extension"] != "none" and name in ("guided_step", "group_norm_silu", "paired_attention")
        assert devices["cpu"] == (f"c++ ({now['isa']})" if in_cpp else "reference")
        assert devices["cuda"] in ("reference", "triton", "cuda c++")
