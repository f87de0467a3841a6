"""Peak memory of whole edits, each in a process of its own that loads the model, edits once and tells its peak."""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ip2p_fast.peak_memory import allocator_bytes, process_bytes

from .bench import Bench
from .results import Row
from .whole_edits import Engine, Settings, diffusers_pipeline, our_editor, our_sparing_editor


def measure(bench: Bench) -> list[Row]:
    """A 512x512 edit at Stable Diffusion 1.5's size in bfloat16, loading from a folder of bfloat16 weights included."""
    from .random_model import SD15, TINY, save_random_model

    settings = Settings(size=64 if bench.quick else 512, steps=2)
    watch = bench.watching("peak memory of a 512x512 edit, SD1.5 size")
    with tempfile.TemporaryDirectory() as folder:
        model = save_random_model(TINY if bench.quick else SD15, Path(folder))
        weights = sum(file.stat().st_size for file in model.rglob("*.safetensors")) / 1e9
        ours = peak_memory_gb(our_editor, model, settings, "bfloat16")
        watch(1, 3)
        sparing = peak_memory_gb(our_sparing_editor, model, settings, "bfloat16")
        watch(2, 3)
        diffusers = peak_memory_gb(diffusers_pipeline, model, settings, "bfloat16")
        watch(3, 3)
    detail = {
        "what": "peak memory of a 512x512 edit, SD1.5 size, bfloat16 on a CPU (torch), loading included",
        "diffusers_gb": diffusers,
        "weights_gb": weights,
        "steps": settings.steps,
    }
    sparing_detail = detail | {"what": f"{detail['what']}, low_memory", "without_gb": ours}
    return [
        Row("cpu.sd15.edit_512.peak_memory", ours, "GB", "lower", 5.0, detail),
        Row("cpu.sd15.edit_512.low_memory.peak_memory", sparing, "GB", "lower", None, sparing_detail),
    ]


def peak_memory_gb(engine: Engine, model: str | Path, settings: Settings, dtype: str) -> float:
    """Peak memory, in 10^9 bytes, of a new process that makes one edit with this engine: resident, or the GPU's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_edit_once, engine, model, settings, dtype).result()


def _edit_once(engine: Engine, model: str | Path, settings: Settings, dtype: str) -> float:
    engine(model, settings, dtype)(1)
    if settings.device == "cuda":
        return allocator_bytes(settings.device) / 1e9
    return own_peak_gb()


def own_peak_gb() -> float:
    """This process's peak of resident memory."""
    return process_bytes() / 1e9
