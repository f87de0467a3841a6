"""An exported pocket model: how near each backend is to PyTorch in float32, how fast each edits, what int8 costs."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ip2p_fast import Editor
from ip2p_fast.editor import DEFAULTS
from ip2p_fast.errors import BadInput
from ip2p_fast.export.parity import observe

from .bench import Bench
from .comparisons import speedup
from .inputs import INSTRUCTION, picture
from .quality import PICTURES, lowest_psnr, pictures, points_lost
from .random_model import TINY, save_random_model
from .results import Row
from .startup import own_command
from .timing import Timing, Work, interleave
from .whole_edits import Settings, diffusers_pipeline, our_editor

_STEPS = 20
_ROUNDS = 11
_Setting = tuple[str, str]  # backend, dtype
_SETTINGS: tuple[_Setting, ...] = (
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("onnx", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
)
# of the guided noise, and of pictures; int8 is judged by its pictures alone
_NOISE_TARGETS = {"float32": 1e-4, "bfloat16": 2e-2}
_PSNR_TARGETS = {"float32": 45.0, "bfloat16": 30.0, "int8": 30.0}


def measure(bench: Bench) -> list[Row]:
    """Parity, edits a second and loading by backend, and the accuracy of int8, of a bundle made for it."""
    with tempfile.TemporaryDirectory() as folder:
        model: str = bench.model
        samples: Path | None = None
        if bench.quick:
            model, samples = str(save_random_model(TINY, Path(folder, "model"))), write_samples(Path(folder))
        bundle = Path(folder, "bundle")
        bench.watching("exporting")
        export(model, bundle, samples)
        of = partial(_model_of, model, bundle)
        return [*_parity(of, bench), *_loading(bundle, bench), *_speed(model, of, bench), *_accuracy(of, bench)]


def export(model: str, bundle: Path, samples: Path | None) -> None:
    """`ip2p-fast export MODEL -o BUNDLE --int8` in a process of its own, whose memory goes when it is done."""
    asked = [*own_command(), "export", model, "-o", str(bundle), "--int8"]
    asked += [] if samples is None else ["--calibration", str(samples)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadInput(f"the export failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


def write_samples(folder: Path) -> Path:
    """For models that bring no pictures to calibrate on."""
    picture(64).save(folder / "sample.png")
    (folder / "samples.json").write_text(f'[{{"file": "sample.png", "instruction": "{INSTRUCTION}"}}]')
    return folder


def _model_of(model: str, bundle: Path, backend: str) -> str:
    return model if backend == "torch" else str(bundle)


def _parity(of: Callable[[str], str], bench: Bench) -> list[Row]:
    reference = Editor.from_pretrained(of("torch"), "torch", "cpu", "float32")
    count, watch = 1 if bench.quick else PICTURES, bench.watching("parity")
    steps = 2 if bench.quick else _STEPS
    expected, predicted = pictures(reference, count, steps), observe(reference).predictions
    rows = []
    for done, (backend, dtype) in enumerate(_SETTINGS[1:]):
        editor = Editor.from_pretrained(of(backend), backend, "cpu", dtype)
        what = f"{backend} in {dtype} against torch in float32"
        if dtype in _NOISE_TARGETS:
            error = np.linalg.norm(observe(editor).predictions - predicted) / np.linalg.norm(predicted)
            detail = {"what": f"relative error of the guided noise, {what}"}
            name = f"cpu.export.noise_error.{backend}.{dtype}"
            rows.append(Row(name, float(error), "share", "lower", _NOISE_TARGETS[dtype], detail))
        lowest, mean = lowest_psnr(pictures(editor, count, steps), expected)
        facts = {"what": f"PSNR of {_STEPS}-step edits, {what}, the lowest of {count}", "mean": mean}
        rows.append(Row(f"cpu.export.psnr.{backend}.{dtype}", lowest, "dB", "higher", _PSNR_TARGETS[dtype], facts))
        watch(done + 1, len(_SETTINGS) - 1)
    return rows


def _loading(bundle: Path, bench: Bench) -> list[Row]:
    works: dict[str, Work] = {
        backend: partial(Editor.from_pretrained, bundle, backend, "cpu") for backend in ("onnx", "openvino")
    }
    timings = interleave(works, bench.rounds(_ROUNDS), watch=bench.watching("loading"))
    return [
        Row(
            f"cpu.export.load.{backend}",
            timing.spread.p50,
            "s",
            "lower",
            2.0,
            {"what": f"loading an exported pocket model, hashes checked, {backend}", **timing.as_json()},
        )
        for backend, timing in timings.items()
    ]


def _speed(model: str, of: Callable[[str], str], bench: Bench) -> list[Row]:
    chosen = {**DEFAULTS, **Editor.from_pretrained(of("onnx"), "onnx", "cpu").backend.info.defaults}
    settings = Settings(
        size=int(chosen["size"]),
        steps=2 if bench.quick else _STEPS,
        text_guidance=chosen["text_guidance"],
        image_guidance=chosen["image_guidance"],
    )
    edits: dict[str, Callable[[int], object]] = {"diffusers": diffusers_pipeline(_path(model), settings, "float32")}
    for backend, dtype in _SETTINGS:
        edits[f"{backend}.{dtype}"] = our_editor(of(backend), replace(settings, backend=backend), dtype)
    works: dict[str, Work] = {name: partial(edit, 1) for name, edit in edits.items()}
    watch = bench.watching(f"{_STEPS}-step edits by backend")
    timings = interleave(works, bench.rounds(_ROUNDS), watch=watch)
    return [_against_diffusers(name, timings) for name in list(timings)[1:]]


def _path(model: str) -> str:
    """The folder that diffusers reads."""
    return Editor.from_pretrained(model, "torch", "cpu").model_path


def _against_diffusers(name: str, timings: Mapping[str, Timing]) -> Row:
    backend, dtype = name.split(".")
    what = f"pocket, {_STEPS} steps, one edit at a time: {backend} ({dtype}) against diffusers (float32)"
    return speedup(f"cpu.export.edit.{name}.vs_diffusers", what, timings[name], timings["diffusers"])


def _accuracy(of: Callable[[str], str], bench: Bench) -> list[Row]:
    """What the pocket world's reader says of the same edits in float32 and in fewer bits; nothing of other models."""
    if bench.quick:
        return []
    openings = {
        dtype: partial(Editor.from_pretrained, of("openvino"), "openvino", "cpu", dtype)
        for dtype in ("float32", "bfloat16", "int8")
    }
    return points_lost(openings, Path(_path(of("torch"))), "cpu.export", "openvino", bench)
