"""When an edit would be done: the queue played forward with the measured step time, in arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .step_time import StepTime


@dataclass(frozen=True)
class Work:
    """An edit as the forecast sees it: steps to go, and rows of each of them."""

    steps: int
    rows: float


def seconds_to_finish(in_flight: Sequence[Work], queued: Sequence[Work], limit: float, step_time: StepTime) -> float:
    """Seconds until the last of the queued edits is done, at most as many rows in flight as `limit`.

    Sizes are not told apart: a step of all rows in flight is timed as one run. Edits that may come later are not
    reckoned with: they join behind the queue, and slow the steps down by no more than the limit allows.
    """
    running = [[work.steps, work.rows] for work in in_flight if work.steps > 0]
    waiting = [[work.steps, work.rows] for work in queued]
    seconds = 0.0
    while running or waiting:
        rows = sum(row for _, row in running)
        while waiting and (rows + waiting[0][1] <= limit or rows == 0):
            rows += waiting[0][1]
            running.append(waiting.pop(0))
            seconds += step_time.start_seconds
        stride = min(steps for steps, _ in running)
        seconds += stride * step_time.predict(rows)
        for work in running:
            work[0] -= stride
        left = [work for work in running if work[0] > 0]
        seconds += step_time.finish_seconds * (len(running) - len(left))
        running = left
    return seconds
