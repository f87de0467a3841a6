"""The command line of the page: what cannot be served is refused in one line, before a model is loaded."""

import re
import socket
import sys
from pathlib import Path

import pytest

from ip2p_fast.cli import main

pytest.importorskip("gradio")
DOCUMENT = Path(__file__).parents[2] / "docs" / "app.md"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "0"], "port"),
        (["--port", "70000"], "port"),
        (["--policy", "fast"], "fast"),
        (["--max-rows", "0"], "max_rows is 0"),
        (["--max-queue", "0"], "max-queue"),
        (["--model", "/no/such/model", "--backend", "onnx"], "/no/such/model"),
        (["--host", "no.such.host.invalid"], "cannot listen at"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(capsys, options, words):
    assert main(["app", *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_an_address_that_is_taken_is_refused(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["app", "--port", str(port), "--model", "/no/such/model"]) == 2
    assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err


def test_an_absent_extra_is_named(capsys, monkeypatch):
    for module in [name for name in sys.modules if name.startswith("ip2p_fast.app.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app"]) == 2
    error = capsys.readouterr().err
    assert "ip2p-fast[app]" in error and error.count("\n") == 1


def test_every_option_of_the_document_is_there(capsys):
    main(["app", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert options >= set(re.findall(r"`(--[a-z-]+)", DOCUMENT.read_text()))
