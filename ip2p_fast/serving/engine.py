"""The engine: one thread runs the StepLoop for ever; edits of any size, scales, steps and seed join and leave it.

Every picture is the one that its request gives alone, whatever runs beside it: bit for bit where the backend's runs do
not depend on their company (torch on a CPU), to rounding elsewhere.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

import numpy as np

from ..editor import Editor, EditRequest
from ..errors import BadInput, Cancelled
from ..loop import LoopEdit, Progress, StepLoop
from .policies import Policy
from .roster import Entry, Roster
from .step_time import StepTime
from .tickets import EngineFailure, Event, Finished, Refused, Stepped, Stopping, Ticket, TooLate

log = logging.getLogger(__name__)

DEFAULT_MAX_QUEUE = 64
# After this many seconds of warm-up no further number of edits is tried: a large model on a CPU would take minutes.
_WARM_UP_SECONDS = 20.0
# After so many failed steps on end the backend is taken to be broken: a GPU error often is for good.
_FAILURES = 3
_WARM_UP_STEPS = 2


class Observer:
    """What the engine tells of itself, on its own thread. Metrics override what they count."""

    def stepped(self, rows: int, seconds: float) -> None:
        """A step of so many rows of the UNet took so long."""

    def joined(self, seconds: float) -> None:
        """An edit left the queue after so long."""

    def finished(self, seconds: float) -> None:
        """An edit's picture was there so long after the edit left the queue."""


class Engine:
    """Runs edits of many callers on one editor, which no one else may use meanwhile.

    Args:
        max_queue: edits that may wait.
        observer: told of steps and waits.
    """

    def __init__(
        self,
        editor: Editor,
        policy: Policy | None = None,
        max_queue: int = DEFAULT_MAX_QUEUE,
        observer: Observer | None = None,
    ) -> None:
        self.editor = editor
        self.policy = policy or Policy()
        self.max_queue = max_queue
        self.observer = observer or Observer()
        self.step_time = StepTime()
        self._loop = StepLoop(editor.backend, min(self.policy.max_rows, editor.max_rows or self.policy.max_rows))
        self._roster = Roster(self.policy, max_queue, self.step_time)
        self._taking = True
        self._halting = False
        self._ready = threading.Event()
        self._failures = 0
        self._turns: dict[tuple[int, ...], int] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # Any thread

    def start(self, warm_up: bool = True) -> None:
        """Starts the thread. Edits are taken at once, and run after the warm-up."""
        if not warm_up:
            self._ready.set()
        self._thread.start()

    def wait_until_ready(self, timeout: float | None = None) -> bool:
        """Whether the warm-up was done within `timeout` seconds."""
        return self._ready.wait(timeout)

    @property
    def ready(self) -> bool:
        """Warm, and taking edits."""
        return self._ready.is_set() and self._taking and self.healthy

    @property
    def healthy(self) -> bool:
        """The thread lives, and the last few steps did not all fail."""
        return self._thread.is_alive() and self._failures < _FAILURES

    @property
    def queue_length(self) -> int:
        """Edits that wait."""
        return len(self._roster.waiting)

    @property
    def in_flight(self) -> int:
        """Edits between their start and their picture."""
        return self._roster.in_flight

    @property
    def full(self) -> bool:
        """Whether the queue has no place."""
        return self.queue_length >= self.max_queue

    def backlog_seconds(self) -> float:
        """Seconds until all that is queued and in flight is done, as measured steps predict."""
        return self._roster.seconds_to_finish()

    def submit(
        self,
        requests: Sequence[EditRequest],
        *,
        seconds: float | None = None,
        previews: int = 0,
        on_event: Callable[[Event], None] | None = None,
    ) -> Ticket:
        """Checks the requests on the calling thread and queues their edits, all of them or none.

        Args:
            seconds: from now to the deadline; edits not done by then are given up.
            previews: how many each edit shows on its way.

        Raises:
            BadInput: a request cannot be met.
            QueueFull, TooLate, Stopping, Refused: it cannot be met now.
        """
        self._require_taking()
        prepared = [self.editor.prepare(request) for request in requests]
        now = time.monotonic()
        deadline = None if seconds is None else now + seconds
        ticket = Ticket(prepared, deadline, previews, on_event, self._roster.drop_ended)
        entries = self._entries(ticket, now)
        if not entries:
            raise BadInput("an empty instruction changes nothing: say what to change")
        with self._roster.changed:
            self._require_taking()
            self._roster.queue(entries, seconds)
            ticket.queued()  # under the lock, so that no other event comes before it
        return ticket

    def drain(self) -> None:
        """Takes no more edits; those that were taken go on."""
        with self._roster.changed:
            self._taking = False

    def stop(self, grace: float = 0.0) -> None:
        """Takes no more, finishes what it has within `grace` seconds, gives the rest up and ends the thread."""
        self.drain()
        with self._roster.changed:
            self._roster.changed.wait_for(lambda: not (self.queue_length or self.in_flight), timeout=grace)
            self._halting = True
            self._roster.changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _require_taking(self) -> None:
        if not self._taking:
            raise Stopping("the server is shutting down: ask another")
        if not self.healthy:
            raise Refused("the engine has failed: ask another server", retry_after=10.0)

    def _entries(self, ticket: Ticket, now: float) -> list[Entry]:
        edits = [edit for one in ticket.prepared for edit in one.edits]
        return [Entry(ticket, i, edit, self._rows(edit), now) for i, edit in enumerate(edits)]

    def _rows(self, edit: LoopEdit) -> float:
        own = self.editor.backend.info.defaults["size"] ** 2
        height, width = edit.image.shape[:2]  # type: ignore[union-attr]  # every edit of a request has its picture
        return max(len(rows) for rows in edit.rows) * max(1.0, height * width / own)

    # The engine's thread

    def _run(self) -> None:
        try:
            if not self._ready.is_set():
                self._warm_up()
                self._ready.set()
            while self._has_work():
                self._leave()
                self._start(self._roster.join())
                if self._roster.flying:
                    self._step()
        except Exception:
            log.exception("the engine failed")
            self._give_up(EngineFailure("the engine failed"))
        else:
            self._give_up(Stopping("the server is shutting down, and the edit was not done in time"))
        finally:
            self._taking = False

    def _warm_up(self) -> None:
        """Steps of one edit, of as many as may be in flight, and of the numbers between while there is time.

        Twice: shapes are compiled for and caches fill, then the step's time is learnt.
        """
        size = self.editor.backend.info.defaults["size"]
        grey = np.full((size, size, 3), 128, np.uint8)
        request = EditRequest(grey, "warm up", steps=_WARM_UP_STEPS, seed=0)
        rows = self._rows(self.editor.prepare(request).edits[0])
        most = max(1, int(self.policy.max_rows // rows))
        counts, began = [1, most, *range(2, most)], time.monotonic()
        for learnt in (False, True):
            for tried, count in enumerate(counts):
                if tried >= 2 and time.monotonic() - began > _WARM_UP_SECONDS:
                    break
                prepared = self.editor.prepare(replace(request, num_images=count))
                ticket = Ticket([prepared], None, 0, None, self._roster.drop_ended)
                self._start(self._entries(ticket, time.monotonic()))
                while self._roster.flying:
                    self._step()
                if ticket.error is not None:
                    raise ticket.error
            if not learnt:
                self.step_time.forget()
        self.editor.backend.settle()

    def _has_work(self) -> bool:
        with self._roster.changed:
            self._roster.changed.wait_for(lambda: self.queue_length or self.in_flight or self._halting)
            return not self._halting

    def _leave(self) -> None:
        """Edits that were given up, or are past their deadline, go before the next step."""
        now = time.monotonic()
        for ticket in self._roster.tickets:
            if ticket.deadline is not None and now > ticket.deadline:
                ticket.fail(TooLate("the edit was not done by its deadline", self.backlog_seconds()))
                self._roster.drop_ended()
        for key, entry in list(self._roster.flying.items()):
            if entry.ticket.error is not None:
                self._take_out(key)

    def _start(self, entries: Sequence[Entry]) -> None:
        # Those of a ticket start together: images of one picture encode it once.
        for _, same in groupby(entries, key=lambda entry: entry.ticket):
            group, joined = list(same), time.monotonic()
            began = time.perf_counter()
            flying: dict[int, Entry] = {}
            try:
                keys = self._loop.add(replace(one.loop_edit, on_step=partial(self._on_step, one)) for one in group)
            except Exception as error:
                self._fail(group, error)
            else:
                self.step_time.observe_start((time.perf_counter() - began) / len(group))
                flying = dict(zip(keys, group, strict=True))
            self._roster.started(group, flying)
            for entry in group:
                entry.joined = joined
                if self._ready.is_set():
                    self.observer.joined(joined - entry.submitted)

    def _step(self) -> None:
        """One step of the edits of one size. Sizes take turns, so that joining and leaving wait for one alone."""
        group = self._next_size()
        rows = sum(entry.rows_of_step for entry in group.values())
        began = time.perf_counter()
        try:
            done = self._loop.step(group)
            self.editor.backend.synchronize()
        except Exception as error:
            self._failures += 1
            for key in group:
                self._take_out(key)
            self._fail(list(group.values()), error)
            return
        seconds = time.perf_counter() - began
        self._failures = 0
        self.step_time.observe(sum(entry.rows for entry in group.values()), seconds)
        if self._ready.is_set():
            self.observer.stepped(rows, seconds)
        for key in done:
            self._finish(key)

    def _next_size(self) -> dict[int, Entry]:
        """The edits in flight of the size whose last turn is longest ago."""
        sizes = {entry.size for entry in self._roster.flying.values()}
        self._turns = {size: self._turns.get(size, 0) for size in sizes}
        chosen = min(sizes, key=lambda size: self._turns[size])
        self._turns[chosen] = max(self._turns.values()) + 1
        return {key: entry for key, entry in self._roster.flying.items() if entry.size == chosen}

    def _on_step(self, entry: Entry, progress: Progress) -> None:
        entry.step = progress.step
        if entry.ticket.error is not None:
            raise Cancelled
        preview = None
        if entry.ticket.wants_preview(progress.step, progress.steps):
            try:
                preview = progress.preview()
            except Exception as error:  # this edit's alone
                self._fail([entry], error)
                raise Cancelled from error
        entry.ticket.stepped(Stepped(entry.index, progress.step, progress.steps, preview))

    def _finish(self, key: int) -> None:
        entry = self._roster.flying[key]
        began = time.perf_counter()
        try:
            picture = self._loop.finish(key)
        except Exception as error:
            self._fail([entry], error)
        else:
            self.step_time.observe_finish(time.perf_counter() - began)
            if self._ready.is_set():
                self.observer.finished(time.monotonic() - entry.joined)
            entry.ticket.finished(Finished(entry.index, picture))
        self._take_out(key)

    def _fail(self, entries: Sequence[Entry], error: Exception) -> None:
        if not isinstance(error, BadInput):
            log.error("the backend failed", exc_info=error)
            failure = EngineFailure("the edit failed in the model's backend")
            failure.__cause__ = error
            error = failure
        for ticket in {entry.ticket for entry in entries}:
            ticket.fail(error)
        self._roster.drop_ended()

    def _take_out(self, key: int) -> None:
        self._loop.cancel(key)
        self._roster.land(key)

    def _give_up(self, error: Exception) -> None:
        self._taking = False
        tickets = self._roster.tickets
        self._roster.clear()
        self._loop.clear()
        for ticket in tickets:
            ticket.fail(error)
