"""A server process to measure, and what it tells of itself."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ip2p_fast.errors import BadInput

from ..startup import own_command

HOST = "127.0.0.1"
_START_SECONDS = 180.0
_STOP_SECONDS = 30.0
# Nothing is refused for its length of wait: what waits is measured, not turned away.
_PATIENT = ("--max-queue", "100000", "--max-bodies", "4096", "--deadline", "3600", "--max-deadline", "3600")
_LOG_END = 300


@dataclass(frozen=True)
class Served:
    """A running `ip2p-fast serve`."""

    process: subprocess.Popen[bytes]
    port: int

    def request(self, method: str, path: str, body: bytes | None = None, timeout: float = 600.0) -> tuple[int, bytes]:
        """Status and body of one request on a connection of its own."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def edit(self, body: bytes) -> dict[str, Any]:
        """The reply to an edit request. Raises BadInput for any status but 200."""
        status, reply = self.request("POST", "/v1/images/edits", body)
        if status != 200:
            raise BadInput(f"the server answered {status}: {reply[:200]!r}")
        return json.loads(reply)

    def metrics(self) -> dict[str, float]:
        """Every metric without labels."""
        _, text = self.request("GET", "/metrics")
        pairs = (line.rsplit(" ", 1) for line in text.decode().splitlines() if line[:1] != "#" and "{" not in line)
        return {name: float(value) for name, value in pairs}

    def metric(self, name: str) -> float:
        """The value of a metric without labels; 0 where it is not there."""
        return self.metrics().get(name, 0.0)

    @property
    def idle(self) -> bool:
        return self.metric("ip2p_queue_length") == 0 and self.metric("ip2p_edits_in_flight") == 0

    def wait_until_idle(self, seconds: float = 600.0) -> None:
        """Raises BadInput if edits are left after so long."""
        end = time.monotonic() + seconds
        while not self.idle:
            if time.monotonic() > end:
                raise BadInput(f"the server still has edits {seconds:g} s after the last request")
            time.sleep(0.1)

    def resident_mib(self) -> float:
        """Resident memory of the server's process."""
        return self._status("VmRSS") / 1024

    def threads(self) -> int:
        """Threads of the server's process."""
        return self._status("Threads")

    def open_files(self) -> int:
        """File descriptors of the server's process, sockets included."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def mean_between(before: Mapping[str, float], after: Mapping[str, float], histogram: str) -> float:
    """Mean of what a histogram counted between two readings of `Served.metrics`; 0 where it counted nothing."""
    total, count = (after[f"{histogram}_{part}"] - before[f"{histogram}_{part}"] for part in ("sum", "count"))
    return total / count if count else 0.0


@contextmanager
def running(*options: str, model: str = "pocket") -> Iterator[Served]:
    """`ip2p-fast serve` with these options, from when it is ready until it is stopped.

    Raises BadInput, with the end of its log, where it does not become ready.
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = [*own_command(), "serve", "--model", model, "--host", HOST, "--port", str(port), *_PATIENT, *options]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        served = Served(process, port)
        try:
            if not _becomes_ready(served):
                log.seek(0)
                raise BadInput(f"{' '.join(command)} did not become ready: {log.read()[-_LOG_END:]!r}")
            yield served
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _becomes_ready(served: Served) -> bool:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and served.process.poll() is None:
        try:
            if served.request("GET", "/readyz", timeout=5)[0] == 200:
                return True
        except OSError:
            pass
        time.sleep(0.1)
    return False
