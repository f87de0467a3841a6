"""How long a user waits for the command: real processes, from their start to their end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ip2p_fast.errors import BadInput

from .bench import Bench
from .inputs import INSTRUCTION, picture
from .results import Row
from .timing import Work, interleave
from .whole_edits import Settings

_ROUNDS = 7


def measure(bench: Bench, model: str, settings: Settings) -> list[Row]:
    """`ip2p-fast edit` with the pocket model, its files in the page cache, and the import of ip2p_fast alone."""
    watch = bench.watching("start of the command")
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "in.png"), Path(folder, "out.png")
        picture(settings.size).save(source)
        edit = [*own_command(), "edit", source, "-p", INSTRUCTION, "-o", out, "--model", Path(model).resolve()]
        edit += ["--steps", settings.steps, "--seed", 0, "--device", "cpu"]
        contenders: dict[str, Work] = {
            "edit": _process(edit, folder),
            "import": _process([sys.executable, "-c", "import ip2p_fast"], folder),
            "python": _process([sys.executable, "-c", ""], folder),
        }
        timings = interleave(contenders, bench.rounds(_ROUNDS), watch=watch)
        if not out.exists():
            raise BadInput(f"{edit} wrote no picture")
    start = timings["edit"]
    imported = timings["import"].spread.p50 - timings["python"].spread.p50
    return [
        Row(
            "cpu.pocket.edit.warm_start",
            start.spread.p50,
            "s",
            "lower",
            4.0,
            {"what": f"ip2p-fast edit, process start to picture written, {settings.steps} steps", **start.as_json()},
        ),
        Row(
            "cpu.import",
            imported,
            "s",
            "lower",
            0.5,
            {"what": "import ip2p_fast, over Python's own start", "python_s": timings["python"].as_json()},
        ),
    ]


def own_command() -> list[str]:
    """What starts ip2p-fast in a process of its own."""
    script = Path(sys.executable).with_name("ip2p-fast")
    return [str(script)] if script.exists() else [sys.executable, "-m", "ip2p_fast.cli"]


def _process(command: Sequence[object], folder: str) -> Work:
    """Runs a command in `folder`. Raises BadInput with its last line if it fails."""

    def run() -> None:
        done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise BadInput(f"{command[0]} failed: {said[-1]}")

    return run
