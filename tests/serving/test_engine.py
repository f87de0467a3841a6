"""The engine without HTTP: who joins when, who leaves, and what a backend that fails takes with it."""

import threading
import time

import numpy as np
import pytest

from ip2p_fast import EditRequest
from ip2p_fast.errors import BadInput, Cancelled
from ip2p_fast.serving.engine import Engine, Observer
from ip2p_fast.serving.forecast import Work, seconds_to_finish
from ip2p_fast.serving.policies import Policy, joining, policy, row_limit
from ip2p_fast.serving.step_time import StepTime
from ip2p_fast.serving.tickets import EngineFailure, Failed, QueueFull, Stepped, Stopping, TooLate


@pytest.fixture
def engine(tiny_editor):
    engine = Engine(tiny_editor, Policy(max_rows=6), max_queue=4)
    engine.start(warm_up=False)
    yield engine
    engine.stop()


@pytest.fixture
def request_of(pictures):
    def make(picture=0, **settings):
        size = max(pictures[picture].size)
        return EditRequest(pictures[picture], "make it night", **({"steps": 4, "seed": 1, "size": size} | settings))

    return make


class Gate:
    """Holds the engine's thread at each of an edit's steps, until it is opened."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, event):
        if isinstance(event, Stepped):
            self.reached.set()
            assert self.opened.wait(20)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.set()


def test_pictures_are_the_editors(engine, tiny_editor, request_of):
    requests = [request_of(0, num_images=2), request_of(1, sampler="ddim", steps=7)]
    pictures = engine.submit(requests).result(20)
    expected = [image for result in tiny_editor.edit_many(requests) for image in result.images]
    for picture, other in zip(pictures, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(other))


def test_every_step_is_told_and_previews_are_spread_over_them(engine, request_of):
    events = []
    engine.submit([request_of(steps=8)], previews=3, on_event=events.append).result(20)
    steps = [event for event in events if isinstance(event, Stepped)]
    assert [event.step for event in steps] == list(range(1, 9))
    assert [event.step for event in steps if event.preview is not None] == [2, 4, 6]
    assert steps[1].preview.shape == (16, 16, 3)


def test_an_edit_that_comes_later_joins_at_the_next_step(engine, request_of, gate):
    long = engine.submit([request_of(steps=500)], on_event=gate)
    assert gate.reached.wait(20)
    short = engine.submit([request_of(steps=2)])
    gate.opened.set()
    assert short.result(20)
    assert engine.in_flight == 1  # the long one goes on
    long.cancel()


def test_a_cancelled_edit_leaves_within_a_step(engine, request_of, gate):
    steps = []
    ticket = engine.submit([request_of(steps=500)], on_event=lambda event: (steps.append(event), gate(event)))
    assert gate.reached.wait(20)
    ticket.cancel()
    gate.opened.set()
    with pytest.raises(Cancelled):
        ticket.result(20)
    engine.stop(grace=20)
    assert sum(isinstance(event, Stepped) for event in steps) == 1
    assert not len(engine._loop)


def test_a_waiting_edit_that_is_cancelled_frees_its_place_at_once(engine, request_of, gate):
    engine.submit([request_of(steps=500)], on_event=gate)
    assert gate.reached.wait(20)
    waiting = engine.submit([request_of(num_images=4)])
    with pytest.raises(QueueFull) as raised:
        engine.submit([request_of()])
    assert raised.value.retry_after >= 0
    waiting.cancel()
    assert engine.queue_length == 0
    engine.submit([request_of()])


def test_a_request_is_queued_whole_or_not_at_all(engine, request_of):
    with pytest.raises(QueueFull):
        engine.submit([request_of(num_images=3), request_of(num_images=2)])
    assert engine.queue_length == engine.in_flight == 0


def test_a_deadline_that_measured_steps_rule_out_is_refused(engine, request_of):
    engine.submit([request_of(steps=20)]).result(20)
    with pytest.raises(TooLate) as raised:
        engine.submit([request_of(steps=900)], seconds=engine.step_time.predict(3) * 10)
    assert raised.value.retry_after > 0
    assert engine.submit([request_of()], seconds=60).result(20)


def test_an_edit_past_its_deadline_is_given_up(engine, request_of, gate):
    ticket = engine.submit([request_of(steps=500)], seconds=0.05, on_event=gate)
    assert gate.reached.wait(20)
    time.sleep(0.06)
    gate.opened.set()
    with pytest.raises(TooLate):
        ticket.result(20)


def test_a_failing_step_takes_the_edits_of_its_size_and_no_other(engine, request_of, gate, monkeypatch):
    step = engine.editor.backend.step
    small = engine.submit([request_of(0, steps=6)], on_event=gate)
    assert gate.reached.wait(20)
    wide = engine.submit([request_of(1, steps=6)])

    def failing(plan):
        if plan.noise.shape[2] != plan.noise.shape[3]:
            raise RuntimeError("out of memory")
        step(plan)

    monkeypatch.setattr(engine.editor.backend, "step", failing)
    gate.opened.set()
    assert small.result(20)
    with pytest.raises(EngineFailure) as raised:
        wide.result(20)
    assert "out of memory" in str(raised.value.__cause__)
    monkeypatch.setattr(engine.editor.backend, "step", step)
    assert engine.submit([request_of(1)]).result(20)  # the engine lives on
    assert engine.healthy


def test_edits_that_wait_for_company_start_together(tiny_editor, request_of):
    class Steps(Observer):
        rows = []

        def stepped(self, rows, seconds):
            self.rows.append(rows)

    engine = Engine(tiny_editor, Policy(max_rows=6, hold_seconds=30), observer=Steps())
    engine.start(warm_up=False)
    first = engine.submit([request_of(steps=3)])
    time.sleep(0.05)
    assert engine.queue_length == 1 and not Steps.rows
    second = engine.submit([request_of(steps=3)], seconds=60)
    assert engine.submit([request_of(steps=1)]) and first.result(20) and second.result(20)
    assert Steps.rows[:3] == [6, 6, 6]
    engine.stop()


def test_an_edit_that_fails_takes_the_rest_of_its_request_out_of_the_queue(engine, request_of, monkeypatch):
    def failing(key):
        raise RuntimeError("no memory for a picture")

    monkeypatch.setattr(engine.editor.backend, "finishing", failing)
    ticket = engine.submit([request_of(num_images=4)])  # two fly, two wait
    with pytest.raises(EngineFailure):
        ticket.result(20)
    engine.stop(grace=20)
    assert engine.queue_length == engine.in_flight == len(engine._loop) == 0


def test_a_failing_preview_takes_its_own_edit_and_no_other(engine, request_of, monkeypatch):
    def failing(edit):
        raise RuntimeError("no memory for a picture")

    monkeypatch.setattr(engine.editor.backend, "preview", failing)
    shown, other = engine.submit([request_of(steps=8)], previews=1), engine.submit([request_of(steps=8)])
    with pytest.raises(EngineFailure):
        shown.result(20)
    assert other.result(20)


def test_a_start_that_fails_leaves_nothing_in_the_backend(engine, request_of, monkeypatch):
    backend = engine.editor.backend
    start = backend.start

    def failing(edits):
        start(edits)
        raise RuntimeError("no more memory")

    monkeypatch.setattr(backend, "start", failing)
    with pytest.raises(EngineFailure):
        engine.submit([request_of()]).result(20)
    monkeypatch.setattr(backend, "start", start)
    assert not backend._edits
    assert engine.submit([request_of()]).result(20)


def test_a_backend_that_keeps_failing_makes_the_engine_unhealthy(engine, request_of, monkeypatch):
    def failing(plan):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(engine.editor.backend, "step", failing)
    for _ in range(3):
        with pytest.raises(EngineFailure):
            engine.submit([request_of()]).result(20)
    assert not engine.healthy and not engine.ready


def test_a_listener_that_raises_harms_no_one(engine, request_of):
    def raising(event):
        raise RuntimeError("a bug of the listener's")

    assert engine.submit([request_of()], on_event=raising).result(20)


def test_stop_finishes_what_is_there_and_takes_no_more(engine, request_of, gate):
    ticket = engine.submit([request_of(steps=30)], on_event=gate)
    assert gate.reached.wait(20)
    stopping = threading.Thread(target=engine.stop, args=(20,))
    stopping.start()
    while engine.ready:
        time.sleep(0.001)
    with pytest.raises(Stopping):
        engine.submit([request_of()])
    gate.opened.set()
    stopping.join(20)
    assert ticket.result(0)


def test_stop_gives_up_what_its_grace_does_not_suffice_for(engine, request_of, gate):
    events = []
    ticket = engine.submit([request_of(steps=900)], on_event=lambda event: (events.append(event), gate(event)))
    assert gate.reached.wait(20)
    stopping = threading.Thread(target=engine.stop, args=(0.01,))
    stopping.start()
    time.sleep(0.05)
    gate.opened.set()
    stopping.join(20)
    with pytest.raises(Stopping):
        ticket.result(0)
    assert isinstance(events[-1], Failed)


def test_bad_requests_are_refused_on_the_callers_thread(engine, request_of):
    with pytest.raises(BadInput):
        engine.submit([request_of(steps=0)])
    with pytest.raises(BadInput):
        engine.submit([EditRequest(request_of().image, "")])


def test_the_warm_up_measures_steps_and_is_before_ready(tiny_editor):
    engine = Engine(tiny_editor, Policy(max_rows=6))
    assert not engine.ready
    engine.start()
    assert engine.wait_until_ready(60)
    assert engine.ready and engine.step_time.predict(6) > 0
    engine.stop()


# Policies

ROOM = {"limit": 9, "in_flight": 3}


def test_latency_lets_as_many_join_as_there_is_room_for():
    assert joining(policy("latency"), **ROOM, waiting=[3, 3, 3], waited=0) == 2
    assert joining(policy("latency"), **ROOM, waiting=[3], waited=0) == 1
    assert joining(policy("latency"), limit=9, in_flight=9, waiting=[1], waited=99) == 0


def test_throughput_waits_for_company_and_not_for_ever():
    throughput = policy("throughput")
    assert joining(throughput, **ROOM, waiting=[3], waited=0) == 0
    assert joining(throughput, **ROOM, waiting=[3, 3, 3], waited=0) == 2
    assert joining(throughput, **ROOM, waiting=[3], waited=throughput.hold_seconds) == 1


def test_static_lets_none_join_others():
    assert joining(policy("static"), limit=9, in_flight=3, waiting=[3], waited=99) == 0
    assert joining(policy("static"), limit=9, in_flight=0, waiting=[3, 3, 3, 3], waited=0) == 3


def test_none_overtakes_a_large_edit_that_waits():
    assert joining(policy("latency"), **ROOM, waiting=[8, 1, 1], waited=5) == 0


def test_an_edit_larger_than_the_limit_runs_alone():
    assert joining(policy("latency"), limit=9, in_flight=0, waiting=[12, 1], waited=0) == 1


def test_the_row_limit_follows_the_measured_step():
    times = StepTime()
    wanted = Policy(max_rows=100, step_seconds=0.1)
    assert row_limit(wanted, times) == 100  # nothing is measured yet
    for rows in (3, 6, 12):
        times.observe(rows, 0.01 + 0.01 * rows)
    assert row_limit(wanted, times) == pytest.approx(9)
    assert row_limit(Policy(max_rows=100, step_seconds=0.001), times) == 3  # one edit always runs
    assert row_limit(Policy(max_rows=5, step_seconds=0.1), times) == 5


@pytest.mark.parametrize("arguments", [("fast",), ("latency", 0), ("latency", None, 0.0)])
def test_a_policy_that_cannot_be_is_refused(arguments):
    with pytest.raises(BadInput):
        policy(*arguments)


# What measured steps predict


def test_step_time_learns_a_line_and_follows_a_change():
    times = StepTime()
    for _ in range(3):
        for rows in (3, 6, 12):
            times.observe(rows, 0.02 + 0.005 * rows)
    assert times.predict(24) == pytest.approx(0.02 + 0.005 * 24)
    for _ in range(300):
        for rows in (3, 6, 12):
            times.observe(rows, 0.01 * rows)
    assert times.predict(24) == pytest.approx(0.24, rel=0.05)


def test_step_time_of_one_number_of_rows_grows_with_them():
    times = StepTime()
    times.observe(3, 0.3)
    times.observe(3, 0.3)
    assert (times.predict(3), times.predict(6)) == pytest.approx((0.3, 0.6))


def test_a_forecast_plays_the_queue_forward():
    times = StepTime()
    for rows in (3, 6):
        times.observe(rows, 0.1 * rows)
    flying, mine = [Work(4, 3)], [Work(2, 3), Work(2, 3)]
    # both fit: two steps of six rows, two of three; then the second of mine joins in the room of the first
    assert seconds_to_finish(flying, mine[:1], 6, times) == pytest.approx(2 * 0.6 + 2 * 0.3)
    assert seconds_to_finish(flying, mine, 6, times) == pytest.approx(4 * 0.6)
    assert seconds_to_finish([], [], 6, times) == 0
