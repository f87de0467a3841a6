"""Clients that misbehave, a few of each kind; `ip2p-fast bench cpu-serving-soak` sends them by the hundred."""

import numpy as np
import pytest

from ip2p_fast.benchmarks.inputs import picture
from ip2p_fast.benchmarks.serving.abuse import leave_at_random, left_open, malformed, statuses_of_malformed
from ip2p_fast.benchmarks.serving.served import Served
from ip2p_fast.benchmarks.serving.traffic import Arrival, edit_body, poisson, saturated, send

OPTIONS = ("--model", "pocket-student", "--body-seconds", 2, "--max-rows", 4)
BODY = edit_body(picture(64), prompt="make it night", num_inference_steps=4, seed=1)


@pytest.fixture(scope="module")
def served(server):
    return Served(server.process, int(server.url.rsplit(":", 1)[1]))


@pytest.fixture(autouse=True)
def unharmed(served):
    """After each test no edit is left in the engine, and the next edit's picture is the same as before."""
    before = served.edit(BODY)["data"]
    yield
    served.wait_until_idle(30)
    assert served.edit(BODY)["data"] == before


def test_clients_that_leave_leave_no_edits(served):
    files = served.open_files()
    leave_at_random(served, 40, BODY)
    served.wait_until_idle(30)
    assert served.open_files() <= files + 1  # the request that asks may still be closing


def test_malformed_requests_are_refused(served):
    messages = malformed(60, BODY, seed=3)
    statuses = statuses_of_malformed(served, 60, BODY, seed=3)
    wrong = [message[:300] for message, status in zip(messages, statuses, strict=True) if not 400 <= status < 500]
    assert not wrong


def test_bodies_that_never_end_are_turned_away(served):
    assert left_open(served, 20, BODY, seconds=5) == 0


def test_a_server_that_is_behind_does_not_slow_its_clients_down(served):
    """Requests that come together are late by those before them: seconds count from when they were to be sent."""
    answers = send(served, [Arrival(0.0, BODY) for _ in range(12)])
    seconds = sorted(answer.seconds for answer in answers)
    assert all(answer.status == 200 for answer in answers)
    assert seconds[-1] > 2 * seconds[0]


def test_throughput_at_saturation_is_counted_in_edits_a_second(served):
    assert saturated(served, 2.0, 4, 0, picture(64)) > 0


def test_arrivals_are_those_of_their_seed_and_come_at_the_rate():
    first, again, other = (poisson(20.0, 50.0, seed, picture(64)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == pytest.approx(1000, abs=4 * np.sqrt(1000))
    assert all(before.at < after.at < 50 for before, after in zip(first, first[1:], strict=False))
