"""What each precision of the torch backend costs in quality: pocket edits against those in float32.

On a CPU the reference computes the 8-bit layers: the same numbers as a GPU's kernels, but for the order of sums.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch

from ip2p_fast import Editor

from .bench import Bench
from .quality import PICTURES, lowest_psnr, pictures, points_lost
from .random_model import TINY, save_random_model
from .results import Row

_STEPS = 20
_PSNR_TARGETS = {"bfloat16": 30.0, "int8": 30.0, "fp8": 30.0}
_EXACT = "float32"


def measure(bench: Bench) -> list[Row]:
    """Rows DEVICE.quality.psnr.DTYPE and DEVICE.quality.points_lost.DTYPE. A quick trial takes a random model."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with tempfile.TemporaryDirectory() as folder:
        return _rows(str(save_random_model(TINY, Path(folder))) if bench.quick else bench.model, bench)


def _rows(model: str, bench: Bench) -> list[Row]:
    prefix = "gpu.quality" if bench.device == "cuda" else "cpu.quality"
    count, steps = (1, 2) if bench.quick else (PICTURES, _STEPS)
    openings = {
        dtype: partial(Editor.from_pretrained, model, "torch", bench.device, dtype)
        for dtype in (_EXACT, *_PSNR_TARGETS)
    }
    exact_editor = openings[_EXACT]()
    exact = pictures(exact_editor, count, steps)
    rows = []
    watch = bench.watching("likeness of pictures")
    for done, (dtype, target) in enumerate(_PSNR_TARGETS.items()):
        lowest, mean = lowest_psnr(pictures(openings[dtype](), count, steps), exact)
        what = f"PSNR of {steps}-step pocket edits, {dtype} against float32, the lowest of {count}"
        rows.append(Row(f"{prefix}.psnr.{dtype}", lowest, "dB", "higher", target, {"what": what, "mean": mean}))
        watch(done + 1, len(_PSNR_TARGETS))
    if bench.quick:
        return rows
    return [*rows, *points_lost(openings, Path(exact_editor.model_path), prefix, "torch", bench)]
