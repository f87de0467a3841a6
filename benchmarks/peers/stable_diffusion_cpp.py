"""stable-diffusion.cpp's command line, a process a batch: its own clock leaves out its start and loading.

Its program is `sd-cli` (formerly `sd`), which reads a model's folder in Hugging Face layout; InstructPix2Pix is told by
the UNet's 8 input channels. Its weights keep the type they are stored in.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from ip2p_fast.errors import BadInput

from ..inputs import INSTRUCTION, picture
from ..timing import Told
from ..whole_edits import Settings

_OWN_SECONDS = re.compile(r"generate_image completed in ([\d.]+)s")


def require(program: Path) -> None:
    """Raises BadInput for what cannot be run or does not name the option that edits by instruction need."""
    try:
        told = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInput(f"--sd-cpp {program} cannot be run: {error}") from None
    if "--img-cfg-scale" not in told.stdout + told.stderr:
        raise BadInput(f"--sd-cpp {program} has no --img-cfg-scale: give sd-cli of stable-diffusion.cpp, 2025-11 on")


def command(program: Path, model: str, source: Path, out: Path, settings: Settings, count: int) -> list[str]:
    """The arguments of one process that makes `count` edits of a picture, one after the other as the program does."""
    asked = {
        "--mode": "img_gen",
        "--model": model,
        "--ref-image": source,
        "--output": out,
        "--prompt": INSTRUCTION,
        "--cfg-scale": settings.text_guidance,
        "--img-cfg-scale": settings.image_guidance,
        "--sampling-method": "euler_a",
        "--steps": settings.steps,
        "--width": settings.size,
        "--height": settings.size,
        "--batch-count": count,
        "--seed": 0,
    }
    return [str(program), *(str(part) for pair in asked.items() for part in pair)]


def open_program(program: Path, model: str) -> Callable[[Settings, int], Told]:
    """A function that makes `count` edits. Raises BadInput where the program fails or tells no time."""

    def edit(settings: Settings, count: int) -> Told:
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder, "in.png"), Path(folder, "out.png")
            picture(settings.size).save(source)
            arguments = command(program, model, source, out, settings, count)
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        seconds = _OWN_SECONDS.search(said)
        if done.returncode or seconds is None:
            raise BadInput(f"{program} failed: {(said.strip().splitlines() or ['no message'])[-1][:200]}")
        return Told(float(seconds[1]))

    return edit
