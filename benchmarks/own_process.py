"""What only a process of its own can tell of an engine: its first edit, and its peak memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from ip2p_fast.peak_memory import allocator_bytes, process_bytes

from .timing import Told

Result = TypeVar("Result")


@dataclass(frozen=True)
class FirstEdit:
    """Seconds to load the model, of the first edit and of the second, and the process's peak in 10^9 bytes.

    The files are in the page cache. What the first edit takes beyond the second is compilation and warm-up.
    """

    load: float
    first: float
    second: float
    peak_gb: float


def first_edit(open_engine: Callable[[], Callable[[], object]], device: str) -> FirstEdit:
    """Of a new process. `open_engine` loads, and returns what edits once; both are of the top level of a module."""
    return in_own_process(_edit_twice, open_engine, device)


def in_own_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """What `function` returns, from a new process, whose memory goes when it is done."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def _edit_twice(open_engine: Callable[[], Callable[[], object]], device: str) -> FirstEdit:
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # compiled as if for the first time on this machine
    edit, load = _timed(open_engine)
    first, second = (told.seconds if isinstance(told, Told) else took for told, took in (_timed(edit), _timed(edit)))
    return FirstEdit(load, first, second, _peak_gb(device))


def _timed(function: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def _peak_gb(device: str) -> float:
    """Of this process, or of the largest that it started."""
    if device == "cuda":
        return allocator_bytes(device) / 1e9
    started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return max(process_bytes(), started) / 1e9
