"""Step-level batching against request-level batching and none: the same server, requests and moments of arrival."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..bench import Bench
from ..inputs import picture
from ..results import Row
from ..timing import Spread
from . import turns
from .contenders import LOADS, NAMES, POLICIES
from .served import Served, mean_between, running
from .traffic import Answer, Arrival, edit_body, poisson, saturated, send

_MINUTES = 10.0
_ROUNDS = 2
# shares of a round, the rest of which the three loads have alike
_SATURATION_SHARE = 0.15
_AT_ONCE = 32
_ALONE = 60
_SIZE = 64


@dataclass(frozen=True)
class _Round:
    """
    answers        to every request of a round
    per_second     requests answered, from the first arrival to the last reply
    queue_seconds  mean wait of an edit before it joined
    rows_a_step    mean rows of the UNet's runs
    """

    answers: Sequence[Answer]
    per_second: float
    queue_seconds: float
    rows_a_step: float


def measure(bench: Bench) -> list[Row]:
    """Overhead, throughput at saturation, latency at three loads, drift of turns. Three servers take turns."""
    image = picture(_SIZE)
    with ExitStack() as stack:
        servers = {}
        for name, options in POLICIES.items():
            bench.watching(f"starting the server: {name}")
            servers[name] = stack.enter_context(running(*options, model=bench.model))
        bench.watching("overhead")
        overhead = _overhead(servers["step"], image, 5 if bench.quick else _ALONE)
        saturation = _saturation(servers, image, bench)
        capacity = saturation["step"].p50
        rounds = _rounds(servers, image, capacity, bench)
        drift = turns.measure(servers["step"], "pocket")
    bench.watching("turns of pocket-student")
    with running(model="pocket-student") as student:
        drift += turns.measure(student, "pocket_student")
    return [overhead, *_saturation_rows(saturation), *_latency_rows(rounds, capacity), *drift]


def _overhead(served: Served, image: Image.Image, requests: int) -> Row:
    """What a request takes over the engine's own time, from its sending to its reply, one at a time."""
    took = []
    for seed in range(requests + 2):
        before, start = served.metric("ip2p_engine_seconds_sum"), time.perf_counter()
        served.edit(edit_body(image, prompt="make it night", num_inference_steps=20, seed=seed))
        total = time.perf_counter() - start
        took.append(1000 * (total - (served.metric("ip2p_engine_seconds_sum") - before)))
    spread = Spread.of(took[2:])
    what = "server overhead of an edit: request to reply, less the engine's time from queue to picture"
    return Row("cpu.serving.overhead", spread.p50, "ms", "lower", 10.0, {"what": what, **spread.as_json()})


def _saturation(servers: Mapping[str, Served], image: Image.Image, bench: Bench) -> dict[str, Spread]:
    watch = bench.watching("throughput at saturation")
    seconds = _round_seconds(bench) * _SATURATION_SHARE / len(servers)
    rates: dict[str, list[float]] = {name: [] for name in servers}
    rounds = bench.rounds(_ROUNDS)
    for done in range(rounds):
        for name, served in servers.items():
            rates[name].append(saturated(served, seconds, _AT_ONCE, 1000 * done, image))
            served.wait_until_idle()
        watch(done + 1, rounds)
    return {name: Spread.of(values) for name, values in rates.items()}


def _rounds(
    servers: Mapping[str, Served], image: Image.Image, capacity: float, bench: Bench
) -> dict[tuple[int, str], list[_Round]]:
    """By load and policy."""
    watch = bench.watching("latency under load")
    seconds = _round_seconds(bench) * (1 - _SATURATION_SHARE) / (len(servers) * len(LOADS))
    found: dict[tuple[int, str], list[_Round]] = {(load, name): [] for load in LOADS for name in servers}
    rounds = bench.rounds(_ROUNDS)
    for done in range(rounds):
        for load in LOADS:
            arrivals = poisson(capacity * load / 100, seconds, 100 * done + load, image)
            for name, served in servers.items():
                found[load, name].append(_round(served, arrivals))
        watch(done + 1, rounds)
    return found


def _round_seconds(bench: Bench) -> float:
    """Of sending, for all servers and loads."""
    return 40.0 if bench.quick else 60 * (bench.minutes or _MINUTES) / _ROUNDS


def _round(served: Served, arrivals: Sequence[Arrival]) -> _Round:
    before, start = served.metrics(), time.monotonic()
    answers = send(served, arrivals)
    seconds = time.monotonic() - start
    served.wait_until_idle()
    after = served.metrics()
    wait, rows = (mean_between(before, after, f"ip2p_{name}") for name in ("queue_seconds", "step_rows"))
    return _Round(answers, len(answers) / seconds, wait, rows)


def _saturation_rows(saturation: Mapping[str, Spread]) -> list[Row]:
    ours, others = saturation["step"], {name: saturation[name].p50 for name in ("static", "none")}
    mix = f"pocket, requests of 4 to 50 steps, {_AT_ONCE} always open"
    rates = {name: spread.as_json() for name, spread in saturation.items()}
    return [
        Row("cpu.serving.capacity", ours.p50, "edits/s", "higher", None, {"what": mix, **ours.as_json(), "all": rates}),
        *(
            Row(
                f"cpu.serving.saturation.vs_{name}",
                ours.p50 / rate,
                "x",
                "higher",
                1.0 if name == "static" else None,
                {"what": f"throughput at saturation: step-level batching against {NAMES[name]}", "edits_per_s": rates},
            )
            for name, rate in others.items()
        ),
    ]


def _latency_rows(found: Mapping[tuple[int, str], Sequence[_Round]], capacity: float) -> list[Row]:
    rows, failed = [], 0
    for load in LOADS:
        latencies = {name: _latency(found[load, name]) for name in POLICIES}
        failed += sum(latency["failed"] for latency in latencies.values())
        p99 = {name: latency["p99"] for name, latency in latencies.items()}
        better = min(("static", "none"), key=lambda name: p99[name])
        detail = {
            "what": f"p99 of latency at {load}% of capacity: step-level batching over the better of the others "
            f"({NAMES[better]})",
            "rate_per_s": capacity * load / 100,
            "latency_s": latencies,
        }
        ratio = p99["step"] / p99[better]
        target = 0.5 if load == 80 else None
        rows.append(Row(f"cpu.serving.p99_at_{load}.vs_better", ratio, "x", "lower", target, detail))
    what = "requests of the load runs that were not answered with a picture"
    return [*rows, Row("cpu.serving.failed", float(failed), "requests", "lower", 0.0, {"what": what})]


def _latency(rounds: Sequence[_Round]) -> dict[str, Any]:
    """Seconds from a request's arrival to its reply, over all rounds; of each round the rest."""
    every = [answer.seconds for one in rounds for answer in one.answers if answer.status == 200]
    p50, p95, p99 = (float(value) for value in np.percentile(every, (50, 95, 99)))
    return {
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "p99_of_rounds": [float(np.percentile([a.seconds for a in one.answers], 99)) for one in rounds],
        "queue_mean_of_rounds": [one.queue_seconds for one in rounds],
        "requests_per_s_of_rounds": [one.per_second for one in rounds],
        "rows_a_step_of_rounds": [one.rows_a_step for one in rounds],
        "requests": len(every),
        "failed": sum(answer.status != 200 for one in rounds for answer in one.answers),
    }
