"""Many engines as one: what a front has in an engine's place. Edits go to replicas by Ray Serve's handle."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, cast

import numpy as np
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from ...backends import Backend, ModelInfo
from ...editor import Editor, EditRequest, Prepared
from ...errors import BadInput
from ..tickets import EngineFailure, Event, Stopping, Ticket, TooLate
from .replica import Description, State
from .tries import follow

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_LOOK_TIMEOUT = 5.0
# What it takes to tell replicas that their edits are given up.
_LAST_CALLS = 5.0


class Fleet:
    """A `Runner` over the replicas behind a handle. One thread follows all its edits and looks after the replicas.

    Args:
        handle: of the deployment of `Replica`.
        description: of one of them.
        retried: told of each further try why it is made, "lost" or "refused".
    """

    def __init__(
        self, handle: DeploymentHandle, description: Description, retried: Callable[[str], None] = lambda _: None
    ) -> None:
        self.editor = Editor(
            cast(Backend, _Elsewhere(description.info)), description.tokenizer, max_pixels=description.max_pixels
        )
        self.states: tuple[State, ...] = ()
        self._handle = handle.options(method_name="edit", stream=True)
        self._all = handle
        self._capacity = description.capacity
        self._retried = retried
        self._taking = True
        self._open: dict[Ticket, Future[None]] = {}
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet", daemon=True)
        self._thread.start()
        self._looking = asyncio.run_coroutine_threadsafe(self._look(), self._loop)

    @property
    def ready(self) -> bool:
        """Taking edits, and at least one replica is ready."""
        return self._taking and any(state.ready for state in self.states)

    @property
    def healthy(self) -> bool:
        """The front itself works. Ray replaces replicas that do not."""
        return self._thread.is_alive()

    @property
    def queue_length(self) -> int:
        """Edits that wait at replicas, as they were last seen: at most a second or so ago."""
        return sum(state.queue_length for state in self.states)

    @property
    def in_flight(self) -> int:
        """Edits in flight at replicas, as they were last seen."""
        return sum(state.in_flight for state in self.states)

    @property
    def full(self) -> bool:
        """Whether this front alone has given replicas all that they hold. They have the last word."""
        with self._changed:
            edits = sum(len(ticket.seeds) for ticket in self._open)
        return bool(self.states) and edits >= self._capacity * len(self.states)

    def backlog_seconds(self) -> float:
        """Of the replica that will be done first."""
        return min((state.backlog for state in self.states), default=1.0)

    def submit(
        self,
        requests: Sequence[EditRequest],
        *,
        seconds: float | None = None,
        previews: int = 0,
        on_event: Callable[[Event], None] | None = None,
    ) -> Ticket:
        """Checks the requests and sends them on their way. What a replica refuses is told as an event.

        Raises:
            BadInput: a request cannot be met.
            Stopping: no more edits are taken.
        """
        prepared = [self.editor.prepare(request) for request in requests]
        if not any(one.edits for one in prepared):
            raise BadInput("an empty instruction changes nothing: say what to change")
        deadline = None if seconds is None else time.monotonic() + seconds
        ticket = Ticket(prepared, deadline, previews, on_event, lambda: self._give_up(ticket))
        settled = [_settled(request, one) for request, one in zip(requests, prepared, strict=True)]
        with self._changed:
            if not self._taking:
                raise Stopping("the server is shutting down: ask another")
            self._open[ticket] = asyncio.run_coroutine_threadsafe(self._run(ticket, settled, previews), self._loop)
        return ticket

    def stop(self, grace: float = 0.0) -> None:
        """Takes no more, lets replicas finish what they have within `grace` seconds, and gives the rest up."""
        with self._changed:
            self._taking = False
            self._changed.wait_for(lambda: not self._open, timeout=grace)
            left = list(self._open)
        for ticket in left:
            ticket.fail(Stopping("the server is shutting down, and the edit was not done in time"))
            self._give_up(ticket)
        with self._changed:
            self._changed.wait_for(lambda: not self._open, timeout=_LAST_CALLS)
        self._looking.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _give_up(self, ticket: Ticket) -> None:
        with self._changed:
            task = self._open.get(ticket)
        if task is not None:
            task.cancel()

    # The fleet's thread

    async def _run(self, ticket: Ticket, requests: Sequence[EditRequest], previews: int) -> None:
        work = sum(_work(one, self.editor.backend.info) for one in ticket.prepared)

        def send(refused: frozenset[str], seconds: float | None) -> Any:
            return self._handle.remote(requests, previews, seconds=seconds, work=work, refused=refused)

        left = None if ticket.deadline is None else ticket.deadline - time.monotonic()
        try:
            await asyncio.wait_for(follow(ticket, send, self._retried), left)
        except (asyncio.TimeoutError, TimeoutError):
            ticket.fail(TooLate("the edit was not done by its deadline", self.backlog_seconds()))
        except Exception as error:
            log.exception("the edits of a ticket failed")
            failure = EngineFailure("the edit failed in its replica")
            failure.__cause__ = error
            ticket.fail(failure)
        finally:
            with self._changed:
                self._open.pop(ticket, None)
                self._changed.notify_all()

    async def _look(self) -> None:
        """Asks all replicas how they stand, for ever."""
        while True:
            try:
                answers = self._all.broadcast("state").results_async(return_exceptions=True)
                found = await asyncio.wait_for(answers, _LOOK_TIMEOUT)
                self.states = tuple(state for state in found if isinstance(state, State))
            except (RayError, RayServeException, asyncio.TimeoutError, TimeoutError):
                self.states = ()
            except Exception:
                log.exception("replicas cannot be asked how they stand")
                self.states = ()
            await asyncio.sleep(_LOOK_SECONDS)


class _Elsewhere:
    """A backend's description where there is no backend: all that checking a request needs."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info


def _settled(request: EditRequest, prepared: Prepared) -> EditRequest:
    """The request with its picture at the model's size and its seed chosen: the same picture wherever it is made."""
    return replace(request, image=np.asarray(prepared.image), seed=prepared.seed)


def _work(prepared: Prepared, info: ModelInfo) -> float:
    """UNet rows of all steps, those of pictures larger than the model's own size by their area."""
    area = prepared.image.width * prepared.image.height / info.defaults["size"] ** 2
    return (prepared.evaluations(deep=True) + prepared.evaluations(deep=False)) * max(1.0, area)
