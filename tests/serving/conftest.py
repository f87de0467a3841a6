import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai
import pytest

from ip2p_fast.checkpoints import POCKET

SAMPLE = POCKET / "samples" / "meadow_cat.png"


@dataclass(frozen=True)
class Server:
    """A server process of its own, and the clients that call it."""

    process: subprocess.Popen
    url: str
    log: Path

    def client(self, key="none", **options):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options)

    def get(self, path):
        return httpx2.get(self.url + path, timeout=30)

    def post(self, path="/v1/images/edits", **body):
        return httpx2.post(self.url + path, timeout=60, **body)

    def metric(self, name):
        """The value of a metric, its labels written as Prometheus does."""
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def wait_for(self, name, value, seconds=60):
        end = time.monotonic() + seconds
        while self.metric(name) != value:
            assert time.monotonic() < end, f"{name} is {self.metric(name)}, not {value}, after {seconds} s"
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running(folder, *options):
    """`ip2p-fast serve` with these options, from ready until it is stopped."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ip2p_fast.cli", "serve", "--port", str(port), "--backend", "onnx"]
    log = folder / f"{port}.log"
    with log.open("w") as file:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([*command, *map(str, options)], stdout=file, stderr=file, env=environment)
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(server):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert server.process.poll() is None, server.log.read_text()
        try:
            if server.get("/readyz").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(server.log.read_text())


@pytest.fixture(scope="module")
def server(request, tmp_path_factory):
    """One server a module, with the module's OPTIONS."""
    with running(tmp_path_factory.mktemp("server"), *getattr(request.module, "OPTIONS", ())) as server:
        yield server


@pytest.fixture(scope="session")
def sample():
    """The bytes of a 64x64 PNG."""
    return SAMPLE.read_bytes()


@pytest.fixture(scope="session")
def starts():
    """Starts a server with options: `with starts(folder, "--grace", 5) as server`."""
    return running
