"""Peak memory of whole edits, each in a process of its own that loads the model, edits once and tells its peak."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from .bench import Bench
from .results import Row
from .whole_edits import Engine, Settings, diffusers_pipeline, our_editor


def measure(bench: Bench) -> list[Row]:
    """A 512x512 edit at Stable Diffusion 1.5's size in bfloat16, loading from a folder of bfloat16 weights included."""
    from .random_model import SD15, TINY, save_random_model

    settings = Settings(size=64 if bench.quick else 512, steps=2)
    watch = bench.watching("peak memory of a 512x512 edit, SD1.5 size")
    with tempfile.TemporaryDirectory() as folder:
        model = save_random_model(TINY if bench.quick else SD15, Path(folder))
        weights = sum(file.stat().st_size for file in model.rglob("*.safetensors")) / 1e9
        ours = peak_memory_gb(our_editor, model, settings, "bfloat16")
        watch(1, 2)
        diffusers = peak_memory_gb(diffusers_pipeline, model, settings, "bfloat16")
        watch(2, 2)
    detail = {
        "what": "peak memory of a 512x512 edit, SD1.5 size, bfloat16 on a CPU (torch), loading included",
        "diffusers_gb": diffusers,
        "weights_gb": weights,
        "steps": settings.steps,
    }
    return [Row("cpu.sd15.edit_512.peak_memory", ours, "GB", "lower", 5.0, detail)]


def peak_memory_gb(engine: Engine, model: str | Path, settings: Settings, dtype: str) -> float:
    """Peak memory, in 10^9 bytes, of a new process that makes one edit with this engine: resident, or the GPU's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_edit_once, engine, model, settings, dtype).result()


def _edit_once(engine: Engine, model: str | Path, settings: Settings, dtype: str) -> float:
    engine(model, settings, dtype)(1)
    if settings.device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    return own_peak_gb()


def own_peak_gb() -> float:
    """This process's peak. Linux's own figure first: ru_maxrss begins at the parent's peak, whatever the child does."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e9
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
