"""The pocket model's results file: every figure that is claimed of it, with its target."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ip2p_fast import Editor

from .data import draw_pairs
from .evaluate import Report
from .figures import clip_figures, reader_figures, vae_figures
from .reader import load_reader
from .stages import HELD_OUT, load_clip, load_vae

# the bars for a model trained on a CPU, the reader's own, and those a component ships at
_TARGETS = {"target_success": 0.80, "preservation": 0.80, "vae_psnr_db": 28.0, "reader.": 0.99}
_MEASURED_WITH = ("torch", "diffusers", "transformers", "numpy", "pillow")


def write_results(path: Path, editor: Editor, report: Report) -> None:
    """Measures the components of the editor's model on held-out pairs and writes them with the report (schema 1)."""
    folder = Path(editor.model_path)
    reader, vae = load_reader(folder / "reader"), load_vae(folder)
    held_out = draw_pairs("held-out", HELD_OUT, reader.pixels)
    figures = {
        "target_success": report.target_success,
        "preservation": report.preservation,
        "both": report.both,
        "psnr_db": report.psnr_db,
        **vae_figures(vae, held_out),
        **clip_figures(*load_clip(folder), held_out),
        **reader_figures(reader, vae, held_out),
    }
    detail = {"target_success": {"edits": report.edits, "defaults": editor.backend.info.defaults, **report.by_kind}}
    content = {
        "schema": 1,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _MEASURED_WITH}},
        "rerun": f"ip2p-fast evaluate pocket --limit {report.edits} --record {path.as_posix()}",
        "rows": [_row(name, value, detail.get(name, {})) for name, value in figures.items()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _row(name: str, value: float, detail: dict[str, Any]) -> dict[str, Any]:
    target = next((bar for start, bar in _TARGETS.items() if name.startswith(start)), None)
    return {
        "id": f"pocket.{name}",
        "value": round(value, 4),
        "unit": "dB" if name.endswith("_db") else "share",
        "better": "higher",
        "target": target,
        "detail": detail,
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
