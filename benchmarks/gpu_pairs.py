"""Training pairs on a GPU, Stable Diffusion 1.5's size at 512x512 in bfloat16: ours against the original's way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from ip2p_fast.training.dataset.options import guidance_of
from ip2p_fast.training.dataset.pairs.samples import Draws, draw_samples

from .bench import Bench
from .ceilings import synchronizer
from .comparisons import against
from .pairs import CAPTIONS, Maker, by_generator, by_script
from .random_model import SD15, TINY, save_random_model
from .results import Row
from .timing import Work, interleave

_SAMPLES, _STEPS, _ROUNDS = 8, 10, 3
_SPEED_TARGET, _MEMORY_TARGET = 4.0, 1 / 3
_T = TypeVar("_T")


def measure(bench: Bench) -> list[Row]:
    """Pairs a second against a script that makes one after the other with maps in memory, and each one's memory."""
    device = torch.device(bench.device)
    steps, count = (2, 2) if bench.quick else (_STEPS, _SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        base = save_random_model(TINY if bench.quick else SD15, Path(folder), edits=False, device=device)
        samples = draw_samples(CAPTIONS, Draws(count, cfg=guidance_of(str(base))), seed=0)
        makers: dict[str, Maker] = {}
        memory: dict[str, dict[str, float]] = {}
        bench.watching("memory of a pair")
        for name, make in (("script", by_script), ("ours", by_generator)):
            makers[name], weights = _taking(partial(make, base, steps, "bfloat16", bench.device), device)
            _, one = _taking(partial(makers[name], samples[:1]), device)
            _, all_ = _taking(partial(makers[name], samples), device)
            memory[name] = {"weights_gb": weights, "one_pair_gb": one, "all_gb": all_}
        works: dict[str, Work] = {name: partial(maker, samples) for name, maker in makers.items()}
        timings = interleave(
            works, bench.rounds(_ROUNDS), 1, synchronizer(device), bench.watching("pairs of one caption pair")
        )
    what = f"{count} pairs of one caption pair, {steps} steps, SD1.5 size, 512x512, bfloat16"
    ours, script = timings["ours"], timings["script"]
    rates = {"pairs_per_s": count / ours.spread.p50, "script_pairs_per_s": count / script.spread.p50}
    seconds = {"seconds": {name: timing.as_json() for name, timing in timings.items()}}
    words = f"{what}: ours against a diffusers script with explicit maps, one at a time"
    rows = [against("gpu.pairs.vs_script", words, ours, script, {**rates, **seconds}, _SPEED_TARGET)]
    if device.type == "cuda":
        rows.append(_memory_row(what, memory))
    return rows


def _memory_row(what: str, memory: dict[str, dict[str, float]]) -> Row:
    """Of one pair: its tensors at their peak and the weights."""
    peaks = {name: taken["weights_gb"] + taken["one_pair_gb"] for name, taken in memory.items()}
    detail = {"what": f"{what}: GPU memory of one pair, weights included, ours over the script's", "peaks_gb": memory}
    return Row("gpu.pairs.memory", peaks["ours"] / peaks["script"], "share", "lower", _MEMORY_TARGET, detail)


def _taking(function: Callable[[], _T], device: torch.device) -> tuple[_T, float]:
    """What a function returns, and by how many 10^9 bytes the GPU's allocations rise at most meanwhile."""
    if device.type != "cuda":
        return function(), 0.0
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = function()
    return result, (torch.cuda.max_memory_allocated(device) - before) / 1e9
