"""Clients that misbehave, a few of each kind; slow tests send them by the hundred."""

import numpy as np
import pytest

from ip2p_fast.benchmarks.inputs import picture
from ip2p_fast.benchmarks.serving.abuse import leave_at_random, left_open, malformed, statuses_of_malformed
from ip2p_fast.benchmarks.serving.served import Served, mean_between
from ip2p_fast.benchmarks.serving.traffic import Arrival, edit_body, poisson, saturated, send

OPTIONS = ("--model", "pocket-student", "--body-seconds", 2, "--max-rows", 4)
BODY = edit_body(picture(64), prompt="make it night", num_inference_steps=4, seed=1)


def few_or(many, few):
    """The number of clients: few by default, many in a slow test."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def served(server):
    served = Served(server.process, int(server.url.rsplit(":", 1)[1]))
    send(served, [Arrival(0.0, BODY)] * 4)  # every pool has its threads
    return served


@pytest.fixture(autouse=True)
def unharmed(served):
    """After each test no edit, thread or descriptor is left, and the next edit's picture is the same as before."""
    before, threads, files = served.edit(BODY)["data"], served.threads(), served.open_files()
    yield
    served.wait_until_idle(60)
    assert served.edit(BODY)["data"] == before
    assert served.threads() <= threads
    assert served.open_files() <= files + 1  # the request that asks may still be closing


@few_or(1000, few=40)
def test_clients_that_leave_leave_no_edits(served, count):
    leave_at_random(served, count, BODY)
    served.wait_until_idle(60)


@few_or(500, few=60)
def test_malformed_requests_are_refused(served, count):
    messages = malformed(count, BODY, seed=3)
    statuses = statuses_of_malformed(served, count, BODY, seed=3)
    wrong = [message[:300] for message, status in zip(messages, statuses, strict=True) if not 400 <= status < 500]
    assert not wrong


@few_or(200, few=20)
def test_bodies_that_never_end_are_turned_away(served, count):
    assert left_open(served, count, BODY, seconds=5) == 0


def test_a_server_that_is_behind_does_not_slow_its_clients_down(served):
    """Requests that come together are late by those before them: seconds count from when they were to be sent."""
    answers = send(served, [Arrival(0.0, BODY) for _ in range(12)])
    seconds = sorted(answer.seconds for answer in answers)
    assert all(answer.status == 200 for answer in answers)
    assert seconds[-1] > 2 * seconds[0]


def test_waits_and_rows_are_those_between_two_readings(served):
    before = served.metrics()
    send(served, [Arrival(0.0, BODY)] * 6)
    after = served.metrics()
    assert after["ip2p_queue_seconds_count"] - before["ip2p_queue_seconds_count"] == 6
    assert mean_between(before, after, "ip2p_queue_seconds") > 0
    assert 1 <= mean_between(before, after, "ip2p_step_rows") <= 4
    assert mean_between(after, after, "ip2p_step_rows") == 0


def test_throughput_at_saturation_is_counted_in_edits_a_second(served):
    assert saturated(served, 2.0, 4, 0, picture(64)) > 0


def test_arrivals_are_those_of_their_seed_and_come_at_the_rate():
    first, again, other = (poisson(20.0, 50.0, seed, picture(64)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == pytest.approx(1000, abs=4 * np.sqrt(1000))
    assert all(before.at < after.at < 50 for before, after in zip(first, first[1:], strict=False))
