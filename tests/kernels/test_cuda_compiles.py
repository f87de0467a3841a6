"""The CUDA kernels without a GPU: nvcc compiles them, and ptxas reports what they need."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "csrc" / "cuda"
INSTANCES = {"guided_step": 6}  # dtypes x load widths
# as torch.utils.cpp_extension compiles: without conversions and operators of 16-bit types
HIDDEN = ("HALF_OPERATORS", "HALF_CONVERSIONS", "BFLOAT16_CONVERSIONS", "HALF2_OPERATORS")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_100"])
@pytest.mark.parametrize("name", INSTANCES)
def test_it_compiles_without_spills(name, arch, tmp_path):
    command = ["nvcc", "-std=c++20", "--expt-relaxed-constexpr", "-x", "cu", "-cubin", f"-arch={arch}", "-Xptxas", "-v"]
    command += [f"-D__CUDA_NO_{name}__" for name in HIDDEN]
    run = subprocess.run(
        [*command, str(SOURCES / f"{name}.cuh"), "-o", str(tmp_path / "kernel.cubin")], capture_output=True, text=True
    )
    if "Unsupported gpu architecture" in run.stderr:
        pytest.skip(f"this nvcc does not know {arch}")
    assert run.returncode == 0, run.stderr
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill", run.stderr)]
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", run.stderr)]
    assert len(registers) == INSTANCES[name] and len(spills) == 2 * INSTANCES[name], run.stderr
    assert not any(spills)
    assert max(registers) <= 64, "fewer than 1024 threads fit a multiprocessor"
