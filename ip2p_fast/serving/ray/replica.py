"""A replica: one engine in a process of Ray Serve's, and what it says to the fronts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from prometheus_client import Metric
from ray import serve

from ...backends import ModelInfo
from ...editor import EditRequest
from ...errors import BadInput
from ...tokenizer import Tokenizer
from ..engine_options import EngineOptions, start_engine
from ..metrics import Metrics
from ..tickets import Event, Failed, Finished, Queued, Refused, Stepped


@dataclass(frozen=True)
class Description:
    """What a front needs to check requests without a model. capacity: edits that a replica holds at most."""

    info: ModelInfo
    tokenizer: Tokenizer
    max_pixels: int
    capacity: int


@dataclass(frozen=True)
class State:
    """How a replica stands. backlog: seconds until all that it has is done."""

    replica: str
    ready: bool
    queue_length: int
    in_flight: int
    backlog: float
    metrics: Sequence[Metric]


@dataclass(frozen=True)
class Refusal:
    """The replica does not take the edits; another may."""

    replica: str
    error: Exception


@dataclass(frozen=True)
class Taken:
    """The replica has queued the edits: their events follow."""

    replica: str


Answer: TypeAlias = Taken | Refusal | Stepped | Finished | Failed


class Replica:
    """Ready when the engine is warm. An engine that has failed fails Ray's check of health, and is replaced."""

    def __init__(self, options: EngineOptions) -> None:
        self._metrics = Metrics()
        self._engine = start_engine(options, self._metrics)
        self._metrics.watch(self._engine)
        self._capacity = options.max_queue + options.max_rows
        self._max_pixels = options.max_pixels
        self._id = serve.get_replica_context().replica_id.unique_id
        while not self._engine.wait_until_ready(timeout=1.0):
            self.check_health()

    async def describe(self) -> Description:
        editor = self._engine.editor
        return Description(editor.backend.info, editor.tokenizer, self._max_pixels, self._capacity)

    async def state(self) -> State:
        engine = self._engine
        numbers = engine.queue_length, engine.in_flight, engine.backlog_seconds()
        return State(self._id, engine.ready, *numbers, self._metrics.families())

    async def edit(
        self, requests: Sequence[EditRequest], previews: int, seconds: float | None, work: float, refused: Sequence[str]
    ) -> AsyncIterator[Answer]:
        """Runs the edits. Whoever stops listening, or is gone, gives them up.

        work and refused are for `LeastWork` alone, which sees a call's arguments.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def tell(event: Event) -> None:
            with suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(events.put_nowait, event)

        submit = partial(self._engine.submit, requests, seconds=seconds, previews=previews, on_event=tell)
        try:
            ticket = await loop.run_in_executor(None, submit)
        except (Refused, BadInput) as error:
            yield Refusal(self._id, error)
            return
        try:
            left = len(ticket.seeds)
            while left:
                event = await events.get()
                if isinstance(event, Queued):
                    yield Taken(self._id)
                elif isinstance(event, Failed):
                    yield event
                    return
                elif isinstance(event, Finished):
                    left -= 1
                    yield event
                elif event.preview is not None:
                    yield event
        finally:
            ticket.cancel()

    def check_health(self) -> None:
        """Ray calls it every few seconds."""
        if not self._engine.healthy:
            raise RuntimeError("the engine has failed")

    def __del__(self) -> None:
        engine: Any = getattr(self, "_engine", None)
        if engine is not None:
            engine.stop()
