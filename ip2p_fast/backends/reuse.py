"""Reuse as tensors: rows that keep or recall their UNet's deep features, and edits that keep or recall a delta."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..guidance import RowPlan
from ..savings import ReusePlan


@dataclass
class Kept:
    """What one edit keeps of its own steps.

    delta  [C, h, w] float32     guided prediction less that of the first row
    deep   [1, C', h, w] each    deep features of the rows, by whether text and image are given
    """

    delta: Tensor | None = None
    deep: dict[tuple[bool, bool], Tensor] = field(default_factory=dict)


def predict(
    evaluate: Callable[[list[int] | None, Tensor | None], tuple[Tensor, Tensor]],
    rows: RowPlan,
    plan: ReusePlan,
    kept: Sequence[Kept],
    max_rows: int | None = None,
) -> Tensor:
    """Predictions of R rows [R, C, h, w], by at least one call for those that are evaluated whole and one for others.

    Args:
        evaluate: the UNet on some rows (None for all), with deep features of earlier steps or None -> predictions, deep
            features.
        kept: of each edit; the deep features that the plan keeps are put there.
    """
    of_row = [kept[edit].deep for edit in rows.edit]
    conditions = list(zip(rows.text.tolist(), rows.image.tolist(), strict=True))
    prediction_of: dict[int, Tensor] = {}
    groups = list(_groups(plan.deep, max_rows or len(rows.edit)))
    for group in groups:
        recalled = None if plan.deep[group[0]] else torch.cat([of_row[row][conditions[row]] for row in group])
        prediction, deep = evaluate(None if len(group) == len(rows.edit) else group, recalled)
        for place, row in enumerate(group):
            prediction_of[row] = prediction[place : place + 1]
            if plan.keeps_deep[row]:
                of_row[row][conditions[row]] = deep[place : place + 1]
    if len(groups) == 1:
        return prediction
    return torch.cat([prediction_of[row] for row in range(len(rows.edit))])


def exchange_deltas(prediction: Tensor, weights: Tensor, rows: RowPlan, plan: ReusePlan, kept: Sequence[Kept]) -> None:
    """Keeps the deltas that the plan keeps, and adds those that it recalls to the first rows of their edits, in place.

    prediction [R, C, h, w] and weights [R], both float32. An edit that recalls has one row, of weight 1.
    """
    for edit in np.flatnonzero(plan.keeps).tolist():
        first, end = rows.row_start[edit], rows.row_start[edit + 1]
        guided = (weights[first:end, None, None, None] * prediction[first:end]).sum(0)
        kept[edit].delta = guided - prediction[first]
    for edit in np.flatnonzero(plan.recalls).tolist():
        delta = kept[edit].delta
        assert delta is not None, "a schedule recalls only what an earlier step kept"
        prediction[rows.row_start[edit]] += delta


def _groups(deep: np.ndarray, size: int) -> Iterator[list[int]]:
    """Indices of rows that can be evaluated together, at most `size` at once."""
    for alike in (np.flatnonzero(deep), np.flatnonzero(~deep)):
        for first in range(0, len(alike), size):
            yield alike[first : first + size].tolist()
