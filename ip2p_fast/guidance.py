"""Rows: what one guided step asks of the UNet.

InstructPix2Pix (Brooks et al., CVPR 2023, eq. 3) combines three evaluations under two guidance scales:

    e = e(z, 0, 0) + s_I (e(z, c_I, 0) - e(z, 0, 0)) + s_T (e(z, c_I, c_T) - e(z, c_I, 0))

Gathered by evaluation this is a weighted sum of three **rows** of the UNet's batch,

    e = s_T e(z, c_I, c_T) + (s_I - s_T) e(z, c_I, 0) + (1 - s_I) e(z, 0, 0),

and a row whose weight is zero need not be run. The weights of an edit always sum to one, so at least one row stays.
The formula holds at every scale, below one too.

A model that was distilled to guide itself (Meng et al., CVPR 2023) is told both scales and needs one row of weight 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    """One evaluation of the UNet: `text` and `image` say whether the condition is given or null.

    scales: s_T and s_I, which only a distilled model reads.
    """

    text: bool
    image: bool
    weight: float
    scales: tuple[float, float] = (1.0, 1.0)


def dual_guidance(text_guidance: float, image_guidance: float) -> tuple[Row, ...]:
    """The one to three rows of an edit under the two scales s_T and s_I; rows of zero weight are dropped."""
    rows = (
        Row(text=True, image=True, weight=text_guidance),
        Row(text=False, image=True, weight=image_guidance - text_guidance),
        Row(text=False, image=False, weight=1.0 - image_guidance),
    )
    return tuple(row for row in rows if row.weight != 0.0)


def guidance_rows(text_guidance: float, image_guidance: float, distilled: bool) -> tuple[Row, ...]:
    """The rows of an edit by a model of either kind: those of `dual_guidance`, or the one that is told the scales."""
    if distilled:
        return (Row(text=True, image=True, weight=1.0, scales=(text_guidance, image_guidance)),)
    return dual_guidance(text_guidance, image_guidance)


@dataclass(frozen=True)
class RowPlan:
    """The rows of all edits of one step, edit after edit.

    edit       [R] int64    index of the row's edit in the step
    text       [R] bool     the edit's instruction, else its null (or negative) text
    image      [R] bool     the edit's image latents, else zeros
    weight     [R] float32  weight in the edit's guided noise
    scales     [R, 2] float32  s_T and s_I, for a distilled model
    row_start  [E + 1] int64  rows of edit i are row_start[i] : row_start[i + 1]
    """

    edit: np.ndarray
    text: np.ndarray
    image: np.ndarray
    weight: np.ndarray
    scales: np.ndarray
    row_start: np.ndarray

    @property
    def conditions(self) -> bytes:
        """Equal for two plans whose rows differ at most in their weights and scales."""
        return self.edit.tobytes() + self.text.tobytes() + self.image.tobytes()


def plan_rows(rows_of_edit: Sequence[Sequence[Row]]) -> RowPlan:
    """Lays out the rows of each edit one edit after the other."""
    rows = [row for rows in rows_of_edit for row in rows]
    counts = np.array([len(rows) for rows in rows_of_edit], dtype=np.int64)
    return RowPlan(
        edit=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
        text=np.array([row.text for row in rows], dtype=bool),
        image=np.array([row.image for row in rows], dtype=bool),
        weight=np.array([row.weight for row in rows], dtype=np.float32),
        scales=np.array([row.scales for row in rows], dtype=np.float32).reshape(-1, 2),
        row_start=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
    )
