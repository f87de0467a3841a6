"""Savings that need no training: steps that run fewer rows, or less of each, and take the rest from earlier steps.

- Guidance interval (Kynkaanniemi et al. 2024): outside a part of the steps both scales are 1, which is one row.
- Guidance refresh: the guided prediction differs from that of the first row by a delta that changes slowly. Every n-th
  guided step evaluates all rows and keeps the delta; the steps between evaluate the first row and add it.
- Deep refresh (DeepCache, Ma et al. 2024): what a row's UNet computes below its first level changes slowly too. Every
  n-th step evaluates all of it; the steps between evaluate the first level and take the deep features of before.

All three are numbers of an edit's plan, so a batch may hold edits that save in any way, each in its own phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .guidance import Row, RowPlan, guidance_rows


@dataclass(frozen=True)
class Reuse:
    """What one edit takes from its own earlier steps.

    keeps    for each step, whether its delta is kept: its guided prediction less that of its first row
    recalls  for each step, whether the delta kept last is added to its rows
    deep     for each step, for each of its rows, whether the UNet's deep part is evaluated; where not, the features are
             those of the latest step that evaluated it for a row of the same conditions
    """

    keeps: tuple[bool, ...]
    recalls: tuple[bool, ...]
    deep: tuple[tuple[bool, ...], ...]

    @property
    def reads_deep(self) -> bool:
        """Whether any row takes the deep features of an earlier step."""
        return not all(all(rows) for rows in self.deep)


@dataclass(frozen=True)
class Schedule:
    """The rows of each step of an edit, and what it reuses, if anything."""

    rows: tuple[tuple[Row, ...], ...]
    reuse: Reuse | None


def schedule(
    steps: int,
    text_guidance: float,
    image_guidance: float,
    distilled: bool = False,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    guidance_refresh: int = 1,
    deep_refresh: int = 1,
) -> Schedule:
    """The schedule of an edit.

    Args:
        guidance_interval: (from, to), the part of the steps that is guided: step i of n where from <= i / n < to. Of
            the steps rather than of the noise levels, so that it is the same share of the cost in any sampler's table.
        guidance_refresh: guided steps from one evaluation of all rows to the next.
        deep_refresh: a row's deep features serve until they are this many steps old.
    """
    guided, plain = (guidance_rows(*scales, distilled) for scales in ((text_guidance, image_guidance), (1.0, 1.0)))
    first_alone = (replace(guided[0], weight=1.0),)
    inside = [guidance_interval[0] <= i / steps < guidance_interval[1] for i in range(steps)]
    phase = np.cumsum(inside) - 1  # of the guided steps, which follow each other
    recalls = [within and len(guided) > 1 and n % guidance_refresh > 0 for within, n in zip(inside, phase, strict=True)]
    rows = tuple(
        plain if not within else first_alone if recall else guided
        for within, recall in zip(inside, recalls, strict=True)
    )
    keeps = [following and not recall for recall, following in zip(recalls, [*recalls[1:], False], strict=True)]
    reuse = Reuse(tuple(keeps), tuple(map(bool, recalls)), _deep(rows, deep_refresh))
    return Schedule(rows, reuse if any(recalls) or reuse.reads_deep else None)


@dataclass(frozen=True)
class ReusePlan:
    """What E edits of a step with R rows take from their own earlier steps, and keep for later ones.

    keeps      [E] bool  the edit's delta is kept
    recalls    [E] bool  the delta kept last is added to the edit's rows
    deep       [R] bool  the UNet's deep part is evaluated
    keeps_deep [R] bool  the row's deep features are kept
    """

    keeps: np.ndarray
    recalls: np.ndarray
    deep: np.ndarray
    keeps_deep: np.ndarray


def plan_reuse(rows: RowPlan, reuses: Sequence[Reuse | None], steps: Sequence[int]) -> ReusePlan | None:
    """The reuse of a step of E edits, each at its own step; None where no edit reuses anything."""
    if all(reuse is None for reuse in reuses):
        return None
    keeps: list[bool] = []
    recalls: list[bool] = []
    deep: list[bool] = []
    keeps_deep: list[bool] = []
    for reuse, step, count in zip(reuses, steps, np.diff(rows.row_start), strict=True):
        evaluated = (True,) * count if reuse is None else reuse.deep[step]
        keeps.append(reuse is not None and reuse.keeps[step])
        recalls.append(reuse is not None and reuse.recalls[step])
        deep += evaluated
        keeps_deep += [now and reuse is not None and reuse.reads_deep for now in evaluated]
    return ReusePlan(*(np.array(flags, dtype=bool) for flags in (keeps, recalls, deep, keeps_deep)))


def _deep(rows: Sequence[Sequence[Row]], refresh: int) -> tuple[tuple[bool, ...], ...]:
    latest: dict[tuple[bool, bool], int] = {}  # the step that last evaluated the deep part, by the row's conditions
    deep: list[tuple[bool, ...]] = []
    for step, rows_of_step in enumerate(rows):
        evaluated = tuple(step - latest.get((row.text, row.image), -refresh) >= refresh for row in rows_of_step)
        latest |= {(row.text, row.image): step for row, now in zip(rows_of_step, evaluated, strict=True) if now}
        deep.append(evaluated)
    return tuple(deep)
