"""Clients that misbehave: that leave, that send what is no request, and that send it for ever. All over raw sockets."""

from __future__ import annotations

import base64
import json
import select
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .served import HOST, Served

_AT_ONCE = 32
_PATH = "/v1/images/edits"
_REPLY_SECONDS = 60.0
_LONGEST_STAY = 0.5
_HEAD = "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"


def leave_at_random(served: Served, clients: int, body: bytes, seed: int = 0) -> None:
    """So many clients connect, send a request or a part of it, and are gone a random moment later."""
    random = np.random.default_rng(seed)
    message = request_bytes(body, "application/json")
    plans = [
        (
            len(message) if random.random() < 0.7 else int(random.integers(len(message))),
            random.uniform(0, _LONGEST_STAY),
        )
        for _ in range(clients)
    ]

    def client(plan: tuple[int, float]) -> None:
        length, stay = plan
        try:
            with socket.create_connection((HOST, served.port), timeout=_REPLY_SECONDS) as connection:
                connection.sendall(message[:length])
                time.sleep(stay)
        except OSError:  # the server may be the first to leave
            pass

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(client, plans))


def statuses_of_malformed(served: Served, count: int, body: bytes, seed: int = 0) -> list[int]:
    """The status that each of so many malformed requests is answered with; 0 where there was no answer."""
    messages = malformed(count, body, seed)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda message: _status(served, message), messages))


def left_open(served: Served, count: int, body: bytes, seconds: float) -> int:
    """How many of so many connections the server still holds after `seconds`, each fed a byte of its body a second.

    Raises OSError where it takes no connections any more.
    """
    message = request_bytes(body, "application/json")
    head = len(message) - len(body)
    connections = [socket.create_connection((HOST, served.port), timeout=5) for _ in range(count)]
    try:
        for connection in connections:
            connection.sendall(message[:head])
        held, end, sent = set(connections), time.monotonic() + seconds, head
        while held and time.monotonic() < end:
            answered, _, _ = select.select(list(held), [], [], 1.0)
            held -= set(answered)
            for connection in list(held):
                try:
                    connection.sendall(message[sent : sent + 1])
                except OSError:
                    held.discard(connection)
            sent += 1
        return len(held)
    finally:
        for connection in connections:
            connection.close()


def request_bytes(body: bytes, kind: str) -> bytes:
    """A whole HTTP request with this body."""
    return _HEAD.format(path=_PATH, host=HOST, kind=kind, length=len(body)).encode() + body


def malformed(count: int, body: bytes, seed: int) -> list[bytes]:
    """Requests none of which can be met: each spoils a right one in a way that is drawn."""
    random = np.random.default_rng(seed)
    return [_SPOILED[int(random.integers(len(_SPOILED)))](random, body) for _ in range(count)]


def _noise(random: np.random.Generator, body: bytes) -> bytes:
    return request_bytes(random.bytes(int(random.integers(1, 4096))), "application/json")


def _cut(random: np.random.Generator, body: bytes) -> bytes:
    return request_bytes(body[: int(random.integers(len(body) - 1))], "application/json")


def _wrong_type(random: np.random.Generator, body: bytes) -> bytes:
    return request_bytes(body, str(random.choice(["text/plain", "image/png", "", "application/x-www-form-urlencoded"])))


def _no_boundary(random: np.random.Generator, body: bytes) -> bytes:
    return request_bytes(body, str(random.choice(["multipart/form-data", "multipart/form-data; boundary=x"])))


def _wrong_field(random: np.random.Generator, body: bytes) -> bytes:
    wrong: Sequence[object] = (-1, "?", None, [], {}, 1e99, 10**30, "\x00", True)
    name = str(
        random.choice(["num_inference_steps", "seed", "size", "n", "images", "prompt", "guidance_scale", "nope"])
    )
    value = wrong[int(random.integers(len(wrong)))]
    return request_bytes(json.dumps({**json.loads(body), name: {"no": value}}).encode(), "application/json")


def _no_picture(random: np.random.Generator, body: bytes) -> bytes:
    content = base64.b64encode(random.bytes(int(random.integers(1, 2048)))).decode()
    images = [{"image_url": f"data:image/png;base64,{content}"}]
    return request_bytes(json.dumps({**json.loads(body), "images": images}).encode(), "application/json")


_SPOILED = (_noise, _cut, _wrong_type, _no_boundary, _wrong_field, _no_picture)


def _status(served: Served, message: bytes) -> int:
    try:
        with socket.create_connection((HOST, served.port), timeout=_REPLY_SECONDS) as connection:
            connection.sendall(message)
            line = connection.makefile("rb").readline().split()
            return int(line[1]) if len(line) > 1 else 0
    except OSError:
        return 0
