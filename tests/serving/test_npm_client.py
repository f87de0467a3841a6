"""OpenAI's npm package against a server that runs."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def node():
    """Runs Node.js where the package is that package-lock.json names."""
    if not shutil.which("npm"):
        pytest.skip("Node.js is not installed")
    if subprocess.run(["npm", "ls", "--silent"], cwd=NODE, stdout=subprocess.DEVNULL).returncode:
        subprocess.run(["npm", "ci"], cwd=NODE, check=True, timeout=270)

    def run(*arguments):
        return subprocess.run(["node", *map(str, arguments)], cwd=NODE, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.slow  # it may have to be downloaded
def test_edits_streams_and_errors_are_what_the_npm_package_expects(server, node, sample, tmp_path):
    (tmp_path / "picture.png").write_bytes(sample)
    done = node("edit.mjs", server.url, tmp_path / "picture.png")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "seeds": [7, 8],
        "alike": True,
        "kinds": ["image_edit.partial_image", "image_edit.completed"],
        "refused": ["BadRequestError", 400, "size"],
    }
