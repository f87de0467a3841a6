import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from browser import node_runner, user

DRIVER = Path(__file__).with_name("use_app.mjs")
# Python runs this first: every host that the process looks up or connects to is written down.
LISTENER = """
import os, sys
def told(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect"):
        host = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        with open(os.environ["CALLED"], "a") as file:
            print(event, host[0] if isinstance(host, tuple) else host, file=file)
sys.addaudithook(told)
import socket
socket.getaddrinfo("127.0.0.1", 80)
"""


@dataclass(frozen=True)
class Site:
    """`ip2p-fast app` in a process of its own. called: the file of the hosts it called."""

    url: str
    log: Path
    called: Path

    def metric(self, name):
        """The value of a metric of the server."""
        lines = httpx2.get(self.url + "metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name + " "))


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The page before pocket-student, with the API beside it, one row in flight and a queue of 16."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "sitecustomize.py").write_text(LISTENER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ip2p_fast.cli", "app", "--port", str(port), "--model", "pocket-student"]
    made = Site(f"http://127.0.0.1:{port}/", folder / "log", folder / "hosts")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "CALLED": str(made.called)}
    with made.log.open("w") as log:
        options = dict(stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        process = subprocess.Popen(
            [*command, "--backend", "onnx", "--max-queue", "16", "--max-rows", "1", "--api"], **options
        )
    try:
        told = process.stdout.readline()
        assert made.url in told, told + made.log.read_text()
        yield made
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture(scope="session")
def node():
    return node_runner()


@pytest.fixture
def use_app(node, site, tmp_path):
    """Does actions of `use_app.mjs` on the page, and holds what every visit must hold."""
    use = user(node, DRIVER, tmp_path / "profile")

    def visit(*actions):
        seen = use(site.url, *actions)
        assert seen["errors"] == [] and seen["elsewhere"] == []
        assert "Traceback" not in site.log.read_text()
        return seen["results"]

    return visit
