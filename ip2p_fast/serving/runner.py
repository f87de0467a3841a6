"""What the API stands before: one `Engine` in its own process, or a `ray.Fleet` of them on many machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..editor import Editor, EditRequest
from .tickets import Event, Ticket


class Runner(Protocol):
    """Takes edits from any thread and runs them; `Engine` says what each of these does."""

    @property
    def editor(self) -> Editor:
        """Checks requests. Only a runner itself may run edits on it."""

    @property
    def ready(self) -> bool: ...

    @property
    def healthy(self) -> bool: ...

    @property
    def queue_length(self) -> int: ...

    @property
    def in_flight(self) -> int: ...

    @property
    def full(self) -> bool: ...

    def backlog_seconds(self) -> float: ...

    def submit(
        self,
        requests: Sequence[EditRequest],
        *,
        seconds: float | None = None,
        previews: int = 0,
        on_event: Callable[[Event], None] | None = None,
    ) -> Ticket: ...

    def stop(self, grace: float = 0.0) -> None: ...
