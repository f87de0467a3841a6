"""The Dockerfile, as far as it can be checked where no image can be built."""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ip2p_fast.cli import main

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
REQUIREMENTS = ROOT / "examples" / "docker" / "requirements.py"
pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="the images' Python has tomllib")


def instructions():
    """(instruction, arguments) with lines put together and comments left out."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.M)
    text = re.sub(r"\\\n\s*", " ", text)
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def given(name):
    return [arguments for instruction, arguments in instructions() if instruction == name]


def test_stages_are_there_before_they_are_used():
    known = set()
    for image, *name in (re.split(r"\s+AS\s+", arguments) for arguments in given("FROM")):
        variants = [image.replace("${VARIANT}", variant) for variant in ("cpu", "cuda")]
        for variant in variants:
            assert variant in known or re.search(r":.*\d+\.\d+\.\d+", variant), f"{variant} has no exact version"
        known |= set(name)
    sources = re.findall(r"--from=(\S+)|,from=([^,\s]+)", DOCKERFILE)
    assert sources and {one or other for one, other in sources} <= known


def test_the_image_runs_as_no_root_and_tells_whether_it_is_ready():
    last = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    uid = re.search(r"useradd --uid (\d+)", last)[1]
    assert f"USER {uid}" in last and int(uid) > 0
    assert "HEALTHCHECK" in last and "/readyz" in last


def test_what_is_copied_is_there_and_not_ignored():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    kept = [rule[1:] for rule in rules if rule[0] == "!"]
    assert rules[0] == "*" and all(list(ROOT.glob(rule)) for rule in kept)
    for arguments in given("COPY"):
        *sources, _ = arguments.split()
        if not any(source.startswith("--from") for source in sources):
            for source in sources:
                assert (ROOT / source).exists()
                assert source == "." or any(fnmatch.fnmatch(source, f"{rule}*") for rule in kept)
    # what a build of the package reads
    assert {"pyproject.toml", "setup.py", "csrc", "ip2p_fast", "export", "training", "README.md", "LICENSE"} <= set(
        kept
    )


@pytest.mark.parametrize("extras", [re.search(r"ARG EXTRAS=(\S+)", DOCKERFILE)[1], "torch,ray", "onnx,serve"])
def test_requirements_of_extras_are_those_of_the_package(extras):
    command = [sys.executable, REQUIREMENTS, ROOT / "pyproject.toml", extras]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    names = {re.match(r"[\w.-]+", line)[0] for line in lines}
    assert "ip2p-fast" not in names and {"numpy", "fastapi", "uvicorn"} <= names
    assert ("torch" in names) is ("torch" in extras) and ("ray" in names) is ("ray" in extras)


def test_the_command_of_the_image_is_one_of_the_program(capsys):
    entry, command = given("ENTRYPOINT")[0], given("CMD")[-1]
    assert entry == '["ip2p-fast"]'
    arguments = re.findall(r'"([^"]+)"', command)
    assert main([*arguments, "--max-rows", "0"]) == 2
    assert "max_rows" in capsys.readouterr().err
    port = arguments[arguments.index("--port") + 1]
    assert given("EXPOSE") == [port] and f":{port}/readyz" in DOCKERFILE
