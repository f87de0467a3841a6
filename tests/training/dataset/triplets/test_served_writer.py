"""The shipped writer behind a real server, that of transformers: both APIs, and a server that dies at work."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ip2p_fast.cli import main
from ip2p_fast.training.dataset.triplets.triplet import Triplet
from ip2p_fast.training.dataset.triplets.writers import SHIPPED
from ip2p_fast.training.pocket.language import caption
from ip2p_fast.training.pocket.split import draw_pair
from ip2p_fast.training.pocket.writer_figures import edit_done

MODEL = str(SHIPPED["pocket-writer"])
COUNT = 24


@contextmanager
def served(port):
    """A server process with the model loaded, and its address."""
    command = [Path(sys.executable).with_name("transformers"), "serve", MODEL]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 90
        while not answers(port):
            assert process.poll() is None and time.monotonic() < until, "the server did not start"
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def command(tmp_path, port):
    """The command line, its captions and its output."""
    captions = [caption(draw_pair("held-out", n).scene, np.random.default_rng(n)) for n in range(COUNT)]
    (tmp_path / "captions.txt").write_text("\n".join(captions))
    options = ["--writer", "openai", "--endpoint", f"http://127.0.0.1:{port}/v1", "--model", MODEL, "--reconnects", "0"]
    source, out = str(tmp_path / "captions.txt"), tmp_path / "out.jsonl"
    return ["dataset", "triplets", source, "-o", str(out), "--batch", "4", *options], captions, out


def lines(out):
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def test_a_server_that_dies_stops_the_work_and_another_goes_on_with_it(command, port, capfd):
    arguments, captions, out = command
    with served(port) as server:
        work = subprocess.Popen([sys.executable, "-m", "ip2p_fast.cli", *arguments], stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while not lines(out) and time.monotonic() < until:
            time.sleep(0.01)
        server.kill()
        errors = [line for line in work.communicate(timeout=60)[1].splitlines() if line.startswith("error: ")]
    assert work.returncode == 2
    assert len(errors) == 1 and f"the endpoint http://127.0.0.1:{port}/v1 cannot be reached" in errors[0]
    before = lines(out)
    assert 0 < len(before) < COUNT

    with served(port):
        assert main([*arguments, "--resume", "--json"]) == 0
        counts = json.loads(capfd.readouterr().out)
        chat = out.with_name("chat.jsonl")
        (out.parent / "none.txt").write_text("")
        talk = [*arguments, "--api", "chat", "--system", str(out.parent / "none.txt"), "--json"]
        talk[talk.index(str(out))] = str(chat)
        assert main(talk) == 0
        said = json.loads(capfd.readouterr().out)

    written = lines(out)
    assert written[: len(before)] == before
    assert counts["captions"] == COUNT and counts["written"] == len(written) > 0.8 * COUNT
    assert [line["caption"] for line in written] == [
        text for text in captions if text in {w["caption"] for w in written}
    ]
    assert said["written"] == len(lines(chat)) > 0.8 * COUNT
    for found in (written, lines(chat)):
        right = [edit_done(Triplet(line["caption"], line["edit"], line["output"])) for line in found]
        assert sum(edit is not None for edit in right) > 0.5 * len(right)
