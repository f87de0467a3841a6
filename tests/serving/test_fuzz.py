"""A few seconds of fuzzing; tests/fuzz/decode_picture.py tells how to run it for hours."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[1] / "fuzz" / "decode_picture.py"


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
def test_no_bytes_get_past_the_decoders_refusals(tmp_path):
    fuzzer = [sys.executable, HARNESS, "-max_total_time=5", f"-artifact_prefix={tmp_path}/", tmp_path / "corpus"]
    # Linux counts what this process holds into the peak memory of a program that it starts itself, and libFuzzer bounds
    # that peak: so a shell starts it.
    command = ["sh", "-c", '"$@"; exit $?', "sh", *fuzzer]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(re.search(r"Done (\d+) runs", done.stderr)[1]) > 100
