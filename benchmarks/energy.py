"""Joules by the GPU's own counter, where NVML is there to read it."""

from __future__ import annotations

import time
from collections.abc import Callable

from .timing import Work

SECONDS = 2.0
"""The counter moves some ten times a second: work is repeated for at least this long."""


def energy_counter(device: str) -> Callable[[], float] | None:
    """Joules of the first GPU since its driver was loaded; None without a GPU, NVML or a counter (before Volta)."""
    if device != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    except Exception:  # noqa: BLE001  # pynvml absent, or one of NVML's many errors: there is no counter to read
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000


def joules(work: Work, counter: Callable[[], float], synchronize: Callable[[], None]) -> float:
    """Of one call: the mean over SECONDS of calls."""
    calls = 0
    synchronize()
    began, before = time.perf_counter(), counter()
    while time.perf_counter() - began < SECONDS:
        work()
        synchronize()
        calls += 1
    return (counter() - before) / calls
