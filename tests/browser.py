"""Node.js and a headless Chromium for tests of pages: `use_app.mjs` and `use_page.mjs` do what a person would."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def node_runner():
    """Runs Node.js in examples/, where the packages are that package-lock.json names."""
    if not shutil.which("npm"):
        pytest.skip("Node.js is not installed")
    if subprocess.run(["npm", "ls", "--silent"], cwd=EXAMPLES, stdout=subprocess.DEVNULL).returncode:
        subprocess.run(["npm", "ci"], cwd=EXAMPLES, check=True, timeout=270)

    def run(*arguments, **options):
        command = ["node", *map(str, arguments)]
        return subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, timeout=120, **options)

    return run


def user(node, driver, profile):
    """A function of (address, *actions) that does them in the browser and gives what the driver saw."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")

    def use(url, *actions, **more):
        given = {"chromium": chromium, "url": url, "actions": actions, "profile": str(profile)} | more
        done = node(driver, json.dumps(given))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return use
