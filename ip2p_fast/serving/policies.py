"""When waiting edits join those in flight, and how many rows a step may have.

Edits join between steps, in the order they came; none overtakes another, so a large one is not starved by small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import BadInput
from .step_time import StepTime

DEFAULT_MAX_ROWS = 24
# A step of one edit of three rows always runs, whatever the limit on its time.
_FEWEST_ROWS = 3.0


@dataclass(frozen=True)
class Policy:
    """
    max_rows      most rows in flight: bounds memory. A row of a picture larger than the model's own size counts more
    step_seconds  longest step wanted, from which a limit on rows follows as steps are measured; None: no limit
    hold_seconds  how long the first waiting edit waits for company, unless what waits fills the room; 0: joins at once
    refills       whether edits join while others are in flight
    """

    max_rows: int = DEFAULT_MAX_ROWS
    step_seconds: float | None = None
    hold_seconds: float = 0.0
    refills: bool = True


# latency: an edit joins at the next step. throughput: edits join together, as many as there is room for. static: a
# batch of requests is made whole before the next, as servers do that know no steps; it is there to compare with.
POLICIES = {"latency": Policy(), "throughput": Policy(hold_seconds=0.25), "static": Policy(refills=False)}


def policy(name: str, max_rows: int | None = None, step_seconds: float | None = None) -> Policy:
    """A policy of the table with limits of one's own. Raises BadInput for a name or a limit that cannot be met."""
    if name not in POLICIES:
        raise BadInput(f"unknown policy {name!r}: choose {', '.join(POLICIES)}")
    if max_rows is not None and max_rows < 1:
        raise BadInput(f"max_rows is {max_rows}: at least 1 is needed")
    if step_seconds is not None and not step_seconds > 0:
        raise BadInput(f"the longest step is {step_seconds} s: more than 0 is needed")
    chosen = POLICIES[name]
    return replace(chosen, max_rows=max_rows or chosen.max_rows, step_seconds=step_seconds)


def row_limit(policy: Policy, step_time: StepTime) -> float:
    """Most rows in flight: the memory's limit, or the fewer that a step of the wanted length holds."""
    if policy.step_seconds is None:
        return float(policy.max_rows)
    return min(float(policy.max_rows), max(_FEWEST_ROWS, step_time.rows_within(policy.step_seconds)))


def joining(policy: Policy, limit: float, in_flight: float, waiting: Sequence[float], waited: float) -> int:
    """How many of the waiting edits join now.

    Args:
        limit: of `row_limit`.
        in_flight: rows in flight.
        waiting: rows of each waiting edit, first come first.
        waited: seconds that the first of them has waited.
    """
    if in_flight and not policy.refills:
        return 0
    count, rows = 0, in_flight
    # An edit larger than the limit itself runs alone.
    while count < len(waiting) and (rows + waiting[count] <= limit or rows == 0):
        rows += waiting[count]
        count += 1
    full = count < len(waiting)
    return count if full or waited >= policy.hold_seconds else 0
