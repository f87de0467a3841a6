"""Requests of many users: mixed steps, scales and seeds, arriving whether or not the server keeps up."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from PIL import Image

from .served import Served

STEPS = (4, 8, 12, 20, 30, 50)
"""Each as likely as any other."""
_INSTRUCTIONS = ("make it night", "make it snow", "make it a sunset", "turn it into a sketch", "add 3 trees")
_MOST_AT_ONCE = 1024


@dataclass(frozen=True)
class Arrival:
    """A request that is sent `at` seconds after the start."""

    at: float
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What became of it: its status, 0 for a broken connection, and the seconds since it was to be sent."""

    status: int
    seconds: float


def edit_body(picture: Image.Image, **fields: Any) -> bytes:
    """The JSON body of an edit request."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return json.dumps({"images": [{"image_url": url}], **fields}).encode()


def mixed_body(random: np.random.Generator, picture: Image.Image) -> bytes:
    """A request of the mix: all but its picture is drawn."""
    return edit_body(
        picture,
        prompt=str(random.choice(_INSTRUCTIONS)),
        num_inference_steps=int(random.choice(STEPS)),
        guidance_scale=float(random.uniform(2.5, 4.0)),
        image_guidance_scale=float(random.uniform(1.2, 2.0)),
        seed=int(random.integers(2**31)),
    )


def poisson(rate: float, seconds: float, seed: int, picture: Image.Image) -> list[Arrival]:
    """Arrivals of a Poisson process of `rate` requests a second; the same for the same seed."""
    random = np.random.default_rng(seed)
    arrivals, at = [], 0.0
    while (at := at + float(random.exponential(1 / rate))) < seconds:
        arrivals.append(Arrival(at, mixed_body(random, picture)))
    return arrivals


def send(served: Served, arrivals: Sequence[Arrival]) -> list[Answer]:
    """Sends each at its time, and returns when all are answered.

    Seconds count from when a request was to be sent: a server that is slow does not slow its users (open loop).
    """
    start = time.monotonic()

    def one(arrival: Arrival) -> Answer:
        try:
            status = served.request("POST", "/v1/images/edits", arrival.body)[0]
        except OSError:
            status = 0
        return Answer(status, time.monotonic() - start - arrival.at)

    with ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
        answers = []
        for arrival in arrivals:
            time.sleep(max(0.0, start + arrival.at - time.monotonic()))
            answers.append(pool.submit(one, arrival))
        return [answer.result() for answer in answers]


def saturated(served: Served, seconds: float, at_once: int, seed: int, picture: Image.Image) -> float:
    """Edits a second with `at_once` requests always open, counted after a fifth of the time has passed."""
    done: list[float] = []
    end, seeds = time.monotonic() + seconds, count(seed)

    def user() -> None:
        while time.monotonic() < end:
            body = mixed_body(np.random.default_rng(next(seeds)), picture)
            if served.request("POST", "/v1/images/edits", body)[0] == 200:
                done.append(time.monotonic())

    users = [threading.Thread(target=user) for _ in range(at_once)]
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
    first = end - 0.8 * seconds
    return sum(first <= at < end for at in done) / (end - first)
