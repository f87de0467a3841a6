"""What a caller holds of edits given to the engine, and what it hears of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image

from ..editor import Prepared
from ..errors import Cancelled

log = logging.getLogger(__name__)


class Refused(Exception):
    """The engine does not take an edit, or gives it up; `retry_after` seconds from now it may be otherwise."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(Refused):
    """There is no place in the queue."""


class TooLate(Refused):
    """The edit cannot be done by its deadline, or was not."""


class Stopping(Refused):
    """The engine is shutting down."""


class EngineFailure(Exception):
    """The backend raised; its error is the cause."""


@dataclass(frozen=True)
class Queued:
    """The ticket's edits have their places: the first event, before which a ticket may still be refused."""


@dataclass(frozen=True)
class Stepped:
    """Edit number `edit` of the ticket took a step. preview: [H, W, 3] uint8 where one was asked for at this step."""

    edit: int
    step: int
    steps: int
    preview: np.ndarray | None = None


@dataclass(frozen=True)
class Finished:
    """Edit number `edit` of the ticket is done. picture: [H, W, 3] uint8, as the model gave it."""

    edit: int
    picture: np.ndarray


@dataclass(frozen=True)
class Failed:
    """No more comes of this ticket."""

    error: Exception


Event: TypeAlias = Queued | Stepped | Finished | Failed


class Ticket:
    """Edits that were submitted together. Any thread may use it; `on_event` runs on the engine's, under its
    lock at times, and must be brief.

    prepared    one a request; edit number i is the i-th of all their edits in order
    """

    def __init__(
        self,
        prepared: Sequence[Prepared],
        deadline: float | None,
        previews: int,
        on_event: Callable[[Event], None] | None,
        on_cancel: Callable[[], None],
    ) -> None:
        self.prepared = tuple(prepared)
        self.deadline = deadline
        self.error: Exception | None = None
        self._previews = previews
        self._on_event = on_event
        self._on_cancel = on_cancel
        self._pictures: list[np.ndarray | None] = [None] * sum(len(one.edits) for one in prepared)
        self._over = threading.Event()
        self._lock = threading.Lock()

    @property
    def seeds(self) -> list[int]:
        """The seed of each edit."""
        return [edit.seed for one in self.prepared for edit in one.edits]

    def cancel(self) -> None:
        """Gives the edits up: those in flight leave before the next step. Nothing happens if all is over."""
        self.fail(Cancelled("the edit was cancelled"))
        self._on_cancel()

    def result(self, timeout: float | None = None) -> list[Image.Image]:
        """The edited pictures in order, at the model's size. Raises what went wrong; TimeoutError after `timeout` s."""
        if not self._over.wait(timeout):
            raise TimeoutError(f"the edit was not done in {timeout} s")
        if self.error is not None:
            raise self.error
        pictures = iter(self._pictures)
        return [one.restore(Image.fromarray(next(pictures))) for one in self.prepared for _ in one.edits]  # type: ignore[arg-type]

    def wants_preview(self, step: int, steps: int) -> bool:
        """Previews are spread evenly over the steps, the last of them left out: the picture itself follows it."""
        count = min(self._previews, steps - 1)
        return any(step == (i + 1) * steps // (count + 1) for i in range(count))

    def queued(self) -> None:
        self._tell(Queued())

    def stepped(self, event: Stepped) -> None:
        if not self._over.is_set():
            self._tell(event)

    def finished(self, event: Finished) -> bool:
        """Whether this was the last edit of the ticket."""
        with self._lock:
            if self._over.is_set():
                return False
            self._pictures[event.edit] = event.picture
            last = all(picture is not None for picture in self._pictures)
        self._tell(event)
        if last:
            self._over.set()
        return last

    def fail(self, error: Exception) -> bool:
        """Whether this is what ended the ticket."""
        with self._lock:
            if self._over.is_set():
                return False
            self.error = error
            self._over.set()
        self._tell(Failed(error))
        return True

    def _tell(self, event: Event) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:  # a listener that fails must not take the engine with it
            log.exception("a listener of an edit raised")
