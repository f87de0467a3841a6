"""The command line of the server: what cannot be served is refused in one line, before a model is loaded."""

import logging
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ip2p_fast.cli import main
from ip2p_fast.serving.errors import printable
from ip2p_fast.serving.log_lines import PlainFormatter

DOCUMENT = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--policy", "fast"], "latency, throughput, static"),
        (["--max-rows", "0"], "max_rows is 0"),
        (["--max-step-ms", "0"], "more than 0"),
        (["--max-pixels", "0"], "max_pixels is 0"),
        (["--safety-checker", "no.such:thing"], "no.such:thing"),
        (["--safety-checker", "math:pi"], "not a function"),
        (["--api-keys", "/no/such/file"], "cannot be read"),
        (["--api-keys", "/dev/null"], "has no key"),
        (["--model", "/no/such/model", "--backend", "onnx"], "/no/such/model"),
        (["--port", "0"], "port"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(capsys, options, words):
    assert main(["serve", *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_an_address_that_is_taken_is_refused(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port), "--model", "/no/such/model"]) == 2
    assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err


def test_every_option_of_the_document_is_there(capsys):
    main(["serve", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    document = re.sub(r"pip install.*", "", DOCUMENT.read_text())
    assert options >= set(re.findall(r"`(--[a-z-]+)", document))


def test_a_key_that_no_header_can_carry_is_refused(tmp_path, capsys):
    (tmp_path / "keys").write_text("schlüssel\n")
    assert main(["serve", "--api-keys", str(tmp_path / "keys")]) == 2
    error = capsys.readouterr().err
    assert "printable ASCII" in error and "schl" not in error


def test_what_does_not_print_is_escaped():
    assert printable("a\nb\x1b[0m\u202e") == r"a\nb\x1b[0m\u202e"
    assert printable("é日") == "é日"
    assert len(printable("x" * 10_000)) < 2_100


def test_a_log_line_is_one_line_and_a_traceback_is_behind_a_bar():
    try:
        raise ValueError("a\n2026-01-01 INFO forged\x07")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "said %s", "args": ("x\ny",), "exc_info": (ValueError, error, None)})
    first, *rest = PlainFormatter().format(record).split("\n")
    assert first.endswith(r"said x\ny")
    assert rest and all(line.startswith("    | ") for line in rest)
    assert any(line.endswith(r"forged\x07") for line in rest)


def test_a_bundle_is_served_with_neither_torch_nor_the_training_code():
    script = (
        "import sys\n"
        "from ip2p_fast import Editor\n"
        "from ip2p_fast.serving.engine import Engine\n"
        "assert not {'fastapi', 'uvicorn', 'prometheus_client'} & set(sys.modules)\n"  # the engine alone
        "from ip2p_fast.serving import api, command, server\n"
        "engine = Engine(Editor.from_pretrained('pocket', backend='onnx'))\n"
        "api.create_app(engine, api.Settings())\n"
        "print(sorted({'torch', 'diffusers', 'ip2p_fast.training', 'ip2p_fast.export'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
