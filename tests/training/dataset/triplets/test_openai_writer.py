"""The writer behind an endpoint: what is sent, how often, and what a failure says. The server is another process."""

import json
import re
import socket

import pytest
from endpoint_server import ANSWER, requests_to, serving

from ip2p_fast.cli import main
from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.triplets.captions import Caption
from ip2p_fast.training.dataset.triplets.endpoint import Endpoint, Pace
from ip2p_fast.training.dataset.triplets.journal import Journal
from ip2p_fast.training.dataset.triplets.openai_moderation import moderator_at
from ip2p_fast.training.dataset.triplets.openai_writer import SYSTEM, OpenAIWriter, system_text
from ip2p_fast.training.dataset.triplets.triplet import parse
from ip2p_fast.training.dataset.triplets.writers import Sampling
from ip2p_fast.training.dataset.triplets.writing import Rules, write_triplets

PATIENT = Pace(timeout=20.0, reconnects=3)
ONCE = Pace(timeout=20.0, reconnects=0)


@pytest.fixture(scope="module")
def server():
    with serving() as address:
        yield address


@pytest.fixture(autouse=True)
def _fresh(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    requests_to(server)


def writer(address, api="completions", pace=ONCE, system="", concurrency=1):
    return OpenAIWriter(Endpoint(address, pace), "a-model", Sampling(top_p=0.9), api, system, concurrency)


def test_a_completion_is_asked_for_with_all_settings(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert writer(f"{server}/good/v1").write(["a cat"], [2**40 + 5]) == [ANSWER]
    (asked,) = requests_to(server)
    assert asked["path"] == "/good/v1/completions" and asked["key"] == "Bearer secret"
    assert asked["body"] == {
        "model": "a-model",
        "prompt": "a cat\n##\n",
        "temperature": 0.7,
        "top_p": 0.9,
        "frequency_penalty": 0.1,
        "max_tokens": 256,
        "seed": (2**40 + 5) % 2**31,
        "stop": ["\nEND"],
    }


def test_a_chat_model_gets_the_prompt_as_the_users_message_after_the_system_text(server):
    assert writer(f"{server}/good/v1", "chat", system="be brief").write(["a cat"], [1]) == [ANSWER]
    assert writer(f"{server}/good/v1", "chat").write(["a cat"], [1]) == [ANSWER]
    told, untold = (asked["body"]["messages"] for asked in requests_to(server))
    user = {"role": "user", "content": "a cat\n##\n"}
    assert told == [{"role": "system", "content": "be brief"}, user]
    assert untold == [user]


def test_a_chat_model_is_told_the_format_by_examples_that_are_in_it(tmp_path):
    assert system_text("chat", None) == SYSTEM and system_text("completions", None) == ""
    examples = SYSTEM.split("\n\n")[1:]
    assert len(examples) >= 2
    for example in examples:
        caption, _, answer = example.partition("\n##\n")
        assert not parse(caption, answer).changes_nothing
    (tmp_path / "own.txt").write_text("write like me\n")
    assert system_text("chat", tmp_path / "own.txt") == "write like me"


def test_answers_keep_the_order_of_the_captions_and_come_several_at_a_time(server):
    assert writer(f"{server}/slow/v1", concurrency=4).write(["a", "b", "c", "d"], [1, 2, 3, 4]) == [ANSWER] * 4
    assert max(asked["at_work"] for asked in requests_to(server)) > 1
    writer(f"{server}/slow/v1", concurrency=1).write(["a", "b"], [1, 2])
    asked = requests_to(server)
    assert [entry["body"]["prompt"][0] for entry in asked] == ["a", "b"]
    assert max(entry["at_work"] for entry in asked) == 1


def test_a_failure_that_passes_is_tried_again(server):
    assert writer(f"{server}/flaky/v1", pace=PATIENT).write(["a cat"], [1]) == [ANSWER]
    assert len(requests_to(server)) == 3


def test_the_rate_holds_for_all_threads_and_for_tries_after_a_failure(server):
    pace = Pace(timeout=20.0, reconnects=3, rate=300.0)  # one in 0.2 s
    writer(f"{server}/good/v1", pace=pace, concurrency=4).write(["a", "b", "c", "d"], [1, 2, 3, 4])
    times = sorted(asked["time"] for asked in requests_to(server))
    assert all(later - earlier > 0.1 for earlier, later in zip(times, times[1:], strict=False))
    assert times[-1] - times[0] > 0.5


@pytest.mark.parametrize(
    ("behaviour", "message", "tries"),
    [
        ("401", r"refuses the key \(401\): set OPENAI_API_KEY; .*the reason given", 1),
        ("404", r"has no such model or path \(404\): .*the reason given", 1),
        ("422", "answers 422: .*the reason given", 1),
        ("500", "answers 500 in 2 tries: .*the reason given", 2),
        ("html", "answers what is not of its kind: <html>", 1),
        ("broken", "answers what cannot be read", 1),
        ("nothing", "answers what is not of its kind", 1),
    ],
)
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_useless_answer_names_the_endpoint_and_the_cause(server, behaviour, message, tries, api):
    address = f"{server}/{behaviour}/v1"
    with pytest.raises(BadInput, match=f"the endpoint {address} {message}"):
        writer(address, api, Pace(20.0, 1)).write(["a cat"], [1])
    assert len(requests_to(server)) == tries


def test_no_server_and_no_answer_in_time_are_told_apart(server):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(BadInput, match=f"{address} cannot be reached: .*refused"):
        writer(address).write(["a cat"], [1])
    with pytest.raises(BadInput, match=r"gave no answer within 0.05 s"):
        writer(f"{server}/slow/v1", pace=Pace(0.05, 0)).write(["a cat"], [1])


def test_a_moderator_refuses_what_the_endpoint_flags(server):
    for address in (f"{server}/good/v1", f"{server}/good/v1/moderations"):
        moderator = moderator_at(address, ONCE)
        assert moderator(("a cat", "give it a weapon", "a cat with a weapon"))
        assert not moderator(("a cat", "make it red", "a red cat"))
    assert {asked["path"] for asked in requests_to(server)} == {"/good/v1/moderations"}
    with pytest.raises(BadInput, match="the endpoint .* answers what is not of its kind"):
        moderator_at(f"{server}/html/v1", ONCE)(("a cat",))


def test_what_is_moderated_is_counted_and_not_written(server, tmp_path):
    rules = Rules(moderator=moderator_at(f"{server}/good/v1", ONCE))
    with Journal(tmp_path / "out.jsonl", {}) as journal:
        captions = [Caption(1, "a weapon"), Caption(2, "a cat")]
        counts = write_triplets(captions, writer(f"{server}/good/v1"), journal, rules)
    assert counts["moderated"] == 1 and counts["written"] == 1
    assert "weapon" not in (tmp_path / "out.jsonl").read_text()


def test_the_command_writes_through_an_endpoint(server, tmp_path, capsys):
    (tmp_path / "captions.txt").write_text("a cat\na dog\na weapon\n")
    command = ["dataset", "triplets", str(tmp_path / "captions.txt"), "-o", str(tmp_path / "out.jsonl")]
    command += ["--writer", "openai", "--model", "m", "--endpoint", f"{server}/good/v1"]
    assert main([*command, "--moderation", f"{server}/good/v1", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["captions"], counts["written"], counts["moderated"]) == (3, 2, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--writer", "openai", "--model", "m"], "--endpoint is the address of --writer openai"),
        (["--writer", "openai", "--endpoint", "http://x/v1"], "--model names the language model"),
        (["--writer", "openai", "--model", "m", "--endpoint", "x"], "'x' is no address: .*http://"),
        (["--writer", "openai", "--model", "m", "--endpoint", "http://x", "--api", "talk"], "there is no api 'talk'"),
        (["--writer", "openai", "--model", "m", "--endpoint", "http://x", "--system", "s"], "goes with --api chat"),
        (["--writer", "openai", "--model", "m", "--endpoint", "http://x", "--rate", "0"], "rate is 0"),
        (["--writer", "openai", "--model", "m", "--endpoint", "http://x", "--timeout", "0"], "timeout is 0"),
        (["--writer", "grammar", "--endpoint", "http://x"], "--endpoint is the address of --writer openai"),
        (["--writer", "grammar", "--system", "s"], "--system is for --writer openai"),
        (["--writer", "grammar", "--moderation", "x"], "'x' is no address"),
        (["--writer", "parrot"], "there is no writer 'parrot'"),
    ],
)
def test_options_that_do_not_belong_together_stop_before_anything_is_written(tmp_path, capsys, options, message):
    (tmp_path / "captions.txt").write_text("a cat\n")
    out = tmp_path / "out.jsonl"
    assert main(["dataset", "triplets", str(tmp_path / "captions.txt"), "-o", str(out), *options]) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0 and re.search(message, error), error
    assert not out.exists()
