"""One ticket's way to its pictures: from replica to replica, until one has done its edits or their deadline is past."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

from ..tickets import EngineFailure, Failed, Finished, Refused, Stepped, Stopping, Ticket
from .replica import Answer, Refusal, Taken

# An edit that takes replicas with it must not take all of them.
MOST_LOSSES = 3
# Replicas asked before a client is told that there is no room: the least busy were asked first.
MOST_REFUSALS = 3
_PAUSES = (0.1, 2.0)


class Answers(Protocol):
    """The answers of a replica that was sent edits."""

    def __aiter__(self) -> AsyncIterator[Answer]: ...

    def cancel(self) -> None: ...


Send: TypeAlias = Callable[[frozenset[str], float | None], Answers]
"""(replicas to leave out if there are others, seconds to the deadline) -> answers of the one that was chosen."""


async def follow(ticket: Ticket, send: Send, retried: Callable[[str], None]) -> None:
    """Tells the ticket what becomes of its edits.

    A replica that dies, or whose backend fails, is a loss: the edits go to another. Their seeds are settled, so the
    pictures are those that the first would have made, and what was shown already is not shown again. Edits that no
    replica has taken yet may be refused; those that one has taken are not, and wait for room instead.

    Args:
        retried: told of each further try why it is made, "lost" or "refused".
    """
    told = _Told(ticket)
    avoid: set[str] = set()
    refusals: list[Refused] = []
    losses, pause = 0, _PAUSES[0]
    while True:
        outcome = await _one_try(told, send, frozenset(avoid))
        if outcome is None:
            return
        if isinstance(outcome, Failed):
            ticket.fail(outcome.error)
            return
        if isinstance(outcome, _Loss):
            losses += 1
            if losses == MOST_LOSSES:
                ticket.fail(EngineFailure(f"{losses} replicas were lost over these edits"))
                return
            avoid = {outcome.replica}
        elif told.taken:
            await asyncio.sleep(pause)
            pause, avoid = min(2 * pause, _PAUSES[1]), set()
        else:
            refusals.append(outcome.error)
            if outcome.replica in avoid or len(refusals) == MOST_REFUSALS:
                ticket.fail(min(refusals, key=lambda error: error.retry_after))
                return
            avoid.add(outcome.replica)
        retried("lost" if isinstance(outcome, _Loss) else "refused")


@dataclass(frozen=True)
class _Loss:
    replica: str


@dataclass(frozen=True)
class _Refused:
    replica: str
    error: Refused


@dataclass
class _Told:
    """What the ticket has heard, so that it hears nothing twice."""

    ticket: Ticket
    taken: bool = False
    steps: dict[int, int] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.ticket.seeds)

    def tell(self, event: Taken | Stepped | Finished) -> None:
        if isinstance(event, Taken):
            if not self.taken:
                self.taken = True
                self.ticket.queued()
        elif isinstance(event, Finished):
            if event.edit not in self.done:
                self.done.add(event.edit)
                self.ticket.finished(event)
        elif event.step > self.steps.get(event.edit, 0) and event.edit not in self.done:
            self.steps[event.edit] = event.step
            self.ticket.stepped(event)


async def _one_try(told: _Told, send: Send, refused: frozenset[str]) -> None | Failed | _Refused | _Loss:
    """None: all is done."""
    deadline = told.ticket.deadline
    answers = send(refused, None if deadline is None else deadline - time.monotonic())
    replica = ""
    try:
        async for answer in answers:
            if isinstance(answer, Refusal):
                if isinstance(answer.error, Refused):
                    return _Refused(answer.replica, answer.error)
                return Failed(answer.error)
            if isinstance(answer, Failed):
                return _Loss(replica) if isinstance(answer.error, (EngineFailure, Stopping)) else answer
            if isinstance(answer, Taken):
                replica = answer.replica
            told.tell(answer)
    except RayTaskError:
        raise  # an error of ours in the replica: it would be the same in another
    except DeploymentUnavailableError:
        return _Refused("", Refused("no replica could be started: ask another server", retry_after=10.0))
    except (RayError, RayServeException):
        pass  # of the replica's process, machine or network
    finally:
        answers.cancel()
    return None if told.complete else _Loss(replica)
