"""Ten minutes near capacity, then clients that misbehave: what is lost, what leaks, is the next edit right."""

from __future__ import annotations

import threading
import time

import numpy as np
from PIL import Image

from ..bench import Bench
from ..inputs import picture
from ..results import Row
from . import abuse
from .contenders import POLICIES
from .served import Served, running
from .traffic import edit_body, poisson, saturated, send

_SIZE = 64
_MINUTES = 10.0
_SATURATION_SECONDS = 20.0
_LOAD = 0.95
# until here memory still grows: shapes, caches and arenas come into use
_SETTLED = 0.2
_DISCONNECTS, _MALFORMED, _SLOW = 1000, 500, 200
_BODY_SECONDS = 10.0


def measure(bench: Bench) -> list[Row]:
    """A server of its own, all its life watched."""
    image = picture(_SIZE)
    options = (*POLICIES["step"], "--body-seconds", str(_BODY_SECONDS))
    with running(*options, model=bench.model) as served:
        bench.watching("throughput at saturation")
        capacity = saturated(served, 3.0 if bench.quick else _SATURATION_SECONDS, 32, 0, image)
        served.wait_until_idle()
        minutes = bench.minutes or _MINUTES
        bench.watching(f"{minutes:g} minutes at {_LOAD:.0%} of capacity")
        rows = _soak(served, image, capacity, 10.0 if bench.quick else 60 * minutes)
        bench.watching("clients that misbehave")
        return rows + _abused(served, image, 20 if bench.quick else 1)


def _soak(served: Served, image: Image.Image, capacity: float, seconds: float) -> list[Row]:
    arrivals = poisson(_LOAD * capacity, seconds, 7, image)
    memory, over = [], threading.Event()
    start = time.monotonic()

    def watch() -> None:
        while not over.wait(1.0):
            memory.append((time.monotonic() - start, served.resident_mib()))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        answers = send(served, arrivals)
    finally:
        over.set()
        watching.join()
    minutes, mib = np.array([sample for sample in memory if sample[0] > _SETTLED * seconds]).T / [[60.0], [1.0]]
    slope = float(np.polyfit(minutes, mib, 1)[0])
    p50, p95, p99 = (float(value) for value in np.percentile([answer.seconds for answer in answers], (50, 95, 99)))
    of = f"{seconds / 60:g} minutes at {_LOAD:.0%} of capacity"
    latency = {"p50": p50, "p95": p95, "p99": p99}
    detail = {"rate_per_s": _LOAD * capacity, "requests": len(answers), "latency_s": latency}
    failed = float(sum(answer.status != 200 for answer in answers))
    lost = {"what": f"requests that failed in {of}", **detail}
    grown = {
        "what": f"growth of the server's memory over {of}, the first fifth left out",
        "lowest_mib": float(min(mib)),
        "highest_mib": float(max(mib)),
    }
    return [
        Row("cpu.serving.soak.failed", failed, "requests", "lower", 0.0, lost),
        Row("cpu.serving.soak.memory_slope", slope, "MiB/min", "lower", None, grown),
        Row("cpu.serving.soak.p99", p99, "s", "lower", None, {"what": f"p99 of latency in {of}", **detail}),
    ]


def _abused(served: Served, image: Image.Image, fewer: int) -> list[Row]:
    """fewer: divides the numbers of clients, for a trial."""
    body = edit_body(image, prompt="make it night", num_inference_steps=20, seed=1)
    before, files, threads = served.edit(body)["data"], served.open_files(), served.threads()
    disconnects, requests, slow = (count // fewer for count in (_DISCONNECTS, _MALFORMED, _SLOW))
    abuse.leave_at_random(served, disconnects, body)
    served.wait_until_idle(60)
    statuses = abuse.statuses_of_malformed(served, requests, body)
    # as long as the server gives a body, and a little
    held = abuse.left_open(served, slow, body, _BODY_SECONDS + 5)
    served.wait_until_idle(60)
    time.sleep(1.0)
    after = served.edit(body)["data"]
    leaked = served.metric("ip2p_edits_in_flight") + served.metric("ip2p_queue_length")
    counts = {
        "leaked_edits": (leaked, f"edits left in the engine after {disconnects} clients left at random moments"),
        "malformed_not_refused": (
            sum(not 400 <= status < 500 for status in statuses),
            f"of {requests} malformed requests, those not answered with a status of 400 to 499",
        ),
        "slow_left_open": (held, f"of {slow} clients that send a byte a second, those not turned away in time"),
        "files_left_open": (
            max(0, served.open_files() - files),
            "descriptors open after all of it and not before",
        ),
        "threads_left": (max(0, served.threads() - threads), "threads that run after all of it and not before"),
        "picture_changed": (after != before, "whether the next edit differs from the same one before (0: equal)"),
    }
    return [
        Row(f"cpu.serving.abuse.{name}", float(value), "count", "lower", 0.0, {"what": what})
        for name, (value, what) in counts.items()
    ]
