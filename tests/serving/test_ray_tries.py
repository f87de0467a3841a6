"""A ticket among replicas that refuse, die and fail: what is tried again, and what its client hears."""

import asyncio
import time

import numpy as np
import pytest

ray = pytest.importorskip("ray")
pytest.importorskip("ray.serve")
from ray.exceptions import ActorDiedError, ActorUnavailableError  # noqa: E402

from ip2p_fast import Editor, EditRequest  # noqa: E402
from ip2p_fast.errors import BadInput  # noqa: E402
from ip2p_fast.serving.ray import tries  # noqa: E402
from ip2p_fast.serving.ray.replica import Refusal, Taken  # noqa: E402
from ip2p_fast.serving.tickets import (  # noqa: E402
    EngineFailure,
    Failed,
    Finished,
    Queued,
    QueueFull,
    Stepped,
    Ticket,
    TooLate,
)

PICTURE = np.zeros((64, 64, 3), np.uint8)
DIED = ActorDiedError()


@pytest.fixture(scope="module")
def prepared():
    editor = Editor.from_pretrained("pocket", backend="onnx")
    return editor.prepare(EditRequest(PICTURE, "make it night", steps=3, seed=5, num_images=2))


class Script:
    """Replicas whose answers are written down: a list for each try, in which an exception is raised."""

    def __init__(self, *each_try):
        self.each_try = list(each_try)
        self.asked = []
        self.cancelled = 0

    def __call__(self, refused, seconds):
        self.asked.append(set(refused))
        return _Answers(self, self.each_try.pop(0))


class _Answers:
    def __init__(self, script, answers):
        self.script, self.answers = script, answers

    async def __aiter__(self):
        for answer in self.answers:
            if isinstance(answer, Exception):
                raise answer
            yield answer

    def cancel(self):
        self.script.cancelled += 1


@pytest.fixture
def run(prepared, monkeypatch):
    """Follows a ticket through a script. -> what was heard, why it was tried again, the ticket"""
    monkeypatch.setattr(tries, "_PAUSES", (0.001, 0.002))

    def run(script, seconds=60):
        heard, causes = [], []
        ticket = Ticket([prepared], time.monotonic() + seconds, 2, heard.append, lambda: None)
        asyncio.run(tries.follow(ticket, script, causes.append))
        assert not script.each_try and script.cancelled == len(script.asked)
        return heard, causes, ticket

    return run


def done(edit):
    return Finished(edit, PICTURE)


def step(edit, number):
    return Stepped(edit, number, 3, PICTURE)


def refusal(replica, retry_after=1.0):
    return Refusal(replica, QueueFull(f"{replica} is full", retry_after))


def kinds(heard):
    return [
        (type(event).__name__, *(getattr(event, name) for name in ("edit", "step") if hasattr(event, name)))
        for event in heard
    ]


def test_edits_go_to_another_replica_when_theirs_dies_and_nothing_is_told_twice(run):
    script = Script(
        [Taken("a"), step(0, 1), done(1), DIED], [Taken("b"), step(0, 1), step(0, 2), step(1, 1), done(1), done(0)]
    )
    heard, causes, ticket = run(script)
    expected = [("Queued",), ("Stepped", 0, 1), ("Finished", 1), ("Stepped", 0, 2), ("Finished", 0)]
    assert kinds(heard) == expected
    assert causes == ["lost"] and script.asked == [set(), {"a"}] and ticket.error is None


@pytest.mark.parametrize("loss", [DIED, ActorUnavailableError("away", b"0" * 16), Failed(EngineFailure("broken"))])
def test_edits_that_three_replicas_are_lost_over_are_given_up(run, loss):
    _, causes, ticket = run(Script([Taken("a"), loss], [Taken("b"), loss], [Taken("c"), loss]))
    assert causes == ["lost"] * 2
    assert isinstance(ticket.error, EngineFailure) and "3 replicas" in str(ticket.error)


def test_a_refusal_is_tried_on_others_before_it_is_told(run):
    script = Script([refusal("a")], [refusal("b")], [Taken("c"), done(0), done(1)])
    heard, causes, ticket = run(script)
    assert script.asked == [set(), {"a"}, {"a", "b"}] and causes == ["refused"] * 2
    assert isinstance(heard[0], Queued) and ticket.error is None


@pytest.mark.parametrize("third", ["c", "a"])  # a third that is full too, or no third
def test_what_all_refuse_is_told_with_the_shortest_wait(run, third):
    heard, _, ticket = run(Script([refusal("a", 9)], [refusal("b", 4)], [refusal(third, 7)]))
    assert isinstance(ticket.error, QueueFull) and ticket.error.retry_after == 4
    assert kinds(heard) == [("Failed",)]


def test_edits_once_taken_are_not_refused_but_wait_for_room(run):
    full = [[refusal("b")] for _ in range(5)]
    script = Script([Taken("a"), DIED], *full, [Taken("b"), done(0), done(1)])
    heard, _, ticket = run(script)
    assert kinds(heard) == [("Queued",), ("Finished", 0), ("Finished", 1)] and ticket.error is None


@pytest.mark.parametrize("error", [TooLate("past it"), BadInput("no")])
def test_what_another_replica_would_say_as_well_is_told_at_once(run, error):
    for answer in (Failed(error), Refusal("a", error)) if isinstance(error, BadInput) else (Failed(error),):
        _, causes, ticket = run(Script([answer]))
        assert ticket.error is error and not causes


def test_an_error_of_the_program_itself_is_raised_and_not_tried_again(run):
    error = ray.exceptions.RayTaskError("edit", "traceback", ValueError("a bug"))
    with pytest.raises(ray.exceptions.RayTaskError):
        run(Script([Taken("a"), error]))


def test_replicas_are_told_how_long_the_edits_may_still_take(prepared):
    told = []

    def send(refused, seconds):
        told.append(seconds)
        time.sleep(0.01)
        return _Answers(Script(), [Taken("a"), DIED] if len(told) == 1 else [Taken("b"), done(0), done(1)])

    ticket = Ticket([prepared], time.monotonic() + 60, 0, None, lambda: None)
    asyncio.run(tries.follow(ticket, send, lambda _: None))
    assert 60 > told[0] > told[1] > 50
