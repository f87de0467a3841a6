"""The edits that the engine has: who waits, who starts, who is in flight. Every change is made under one lock."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..loop import LoopEdit
from .forecast import Work, seconds_to_finish
from .policies import Policy, joining, row_limit
from .step_time import StepTime
from .tickets import QueueFull, Ticket, TooLate


@dataclass(eq=False)
class Entry:
    """One edit of a ticket.

    index      its place among the ticket's edits
    rows       of a step, those of pictures above the model's own size by their area
    submitted  when, on the monotonic clock
    joined     when it left the queue
    step       steps taken
    """

    ticket: Ticket
    index: int
    loop_edit: LoopEdit
    rows: float
    submitted: float
    joined: float = 0.0
    step: int = 0

    @property
    def work(self) -> Work:
        """What is left of it."""
        return Work(self.loop_edit.table.steps - self.step, self.rows)

    @property
    def rows_of_step(self) -> int:
        """Rows of the step that comes next."""
        return len(self.loop_edit.rows[self.step])

    @property
    def size(self) -> tuple[int, ...]:
        """Edits of one size share a run."""
        return self.loop_edit.image.shape  # type: ignore[union-attr]  # every edit of a request has its picture


class Roster:
    """Entries go from waiting to starting to flying, and land. `changed` is the lock, and tells of every change."""

    def __init__(self, policy: Policy, max_queue: int, step_time: StepTime) -> None:
        self.changed = threading.Condition()
        self.waiting: deque[Entry] = deque()
        self.flying: dict[int, Entry] = {}
        self._starting: list[Entry] = []
        self._policy, self._max_queue, self._step_time = policy, max_queue, step_time

    @property
    def in_flight(self) -> int:
        """Edits between their start and their picture."""
        return len(self._starting) + len(self.flying)

    @property
    def tickets(self) -> set[Ticket]:
        """Of all entries."""
        with self.changed:
            return {entry.ticket for entry in (*self.waiting, *self._starting, *self.flying.values())}

    def queue(self, entries: Sequence[Entry], seconds: float | None) -> None:
        """Lets the entries wait, all or none. Raises QueueFull, and TooLate where they would not be done in time."""
        with self.changed:
            if len(self.waiting) + len(entries) > self._max_queue:
                raise QueueFull(
                    f"{len(self.waiting)} edits wait and this request has {len(entries)}, over the limit of "
                    f"{self._max_queue}: ask again later",
                    retry_after=self.seconds_to_finish() / 2,
                )
            needed = self.seconds_to_finish(entries)
            if seconds is not None and needed > seconds:
                raise TooLate(
                    f"this would be done in {needed:.2f} s and may take {max(seconds, 0):.2f} s: ask later, for "
                    "fewer steps, or with a later deadline",
                    retry_after=needed - seconds,
                )
            self.waiting.extend(entries)
            self.changed.notify_all()

    def join(self) -> list[Entry]:
        """Takes the entries whose turn it is from the queue; waits while nothing flies and company may come."""
        with self.changed:
            if not self.waiting:
                return []
            waited = time.monotonic() - self.waiting[0].submitted
            limit = row_limit(self._policy, self._step_time)
            flying = sum(entry.rows for entry in self.flying.values())
            count = joining(self._policy, limit, flying, [entry.rows for entry in self.waiting], waited)
            if not count and not self.flying:
                self.changed.wait(max(0.0, self._policy.hold_seconds - waited))
            self._starting = [self.waiting.popleft() for _ in range(count)]
            return self._starting

    def started(self, entries: Sequence[Entry], flying: Mapping[int, Entry]) -> None:
        """The entries have started, and those in `flying`, by key, are in flight: all or none."""
        with self.changed:
            self._starting = [entry for entry in self._starting if entry not in entries]
            self.flying |= flying
            self.changed.notify_all()

    def land(self, key: int) -> None:
        """The edit of this key has left the loop."""
        with self.changed:
            self.flying.pop(key, None)
            self.changed.notify_all()

    def drop_ended(self) -> None:
        """Frees the places of waiting edits whose ticket is over, at once and not after the step that is running."""
        with self.changed:
            self.waiting = deque(entry for entry in self.waiting if entry.ticket.error is None)
            self.changed.notify_all()

    def clear(self) -> None:
        """No one is left."""
        with self.changed:
            self.waiting.clear()
            self.flying.clear()
            self.changed.notify_all()

    def seconds_to_finish(self, more: Sequence[Entry] = ()) -> float:
        """Seconds until all entries, and those in `more` behind them, are done, as measured steps predict."""
        with self.changed:
            flying = [entry.work for entry in self.flying.values()]
            queued = [entry.work for entry in (*self._starting, *self.waiting, *more)]
            return seconds_to_finish(flying, queued, row_limit(self._policy, self._step_time), self._step_time)
