"""Attention that an edit takes from another one in flight, as numbers of a plan: Prompt-to-Prompt (Hertz et al. 2022).

Two edits with the same noise and nearly the same text come out as two unrelated pictures, unless the second uses
attention maps of the first. Which rows do is one integer a row; what happens to the maps of the text is a 77x77 matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .guidance import RowPlan

if TYPE_CHECKING:
    from .loop import LoopEdit


@dataclass(frozen=True)
class TextControl:
    """The target's map of the text, made of its source's and its own: P' = P_source matrix + P_own diag(own).

    Replacement, refinement and reweighting of words (Hertz et al. 2022, section 3.2) are all of this form.

    matrix  [77, 77] float32
    own     [77] float32
    """

    matrix: np.ndarray
    own: np.ndarray


@dataclass(frozen=True)
class LocalBlend:
    """Keeps the source's latents wherever neither text's chosen words draw attention (Hertz et al. 2022, section 3.2).

    source_words, words  [77] float32, 1 at the tokens of the chosen words of the source's and of the target's text
    threshold            share of the strongest attention above which a pixel may change
    first_step           steps before it are not blended
    downsampling         of the attention layers that are looked at, from the latents
    """

    source_words: np.ndarray
    words: np.ndarray
    threshold: float = 0.3
    first_step: int = 0
    downsampling: int = 4


@dataclass(frozen=True)
class Sharing:
    """What one edit takes from its source, an edit with the same table and guidance that joins the loop with it.

    self_steps  for each step, whether the source's self-attention maps take the place of its own, in every row
    text        for each step, what becomes of the text's maps in the row that has the text, or None; () for nothing
    """

    source: LoopEdit
    self_steps: tuple[bool, ...]
    text: tuple[TextControl | None, ...] = ()
    blend: LocalBlend | None = None


@dataclass(frozen=True)
class Blending:
    """A local blend in a plan: indices of the edit, of its source, and of the rows of both that have the text.

    active  whether this step's latents are blended, or its attention only looked at
    """

    blend: LocalBlend
    edit: int
    source: int
    row: int
    source_row: int
    active: bool


@dataclass(frozen=True)
class SharingPlan:
    """The sharing of one step.

    self_source  [R] int64  the row whose self-attention map each row uses
    controls     (row, source row, what to do)
    """

    self_source: np.ndarray
    controls: tuple[tuple[int, int, TextControl], ...] = ()
    blendings: tuple[Blending, ...] = ()

    @property
    def conditions(self) -> bytes:
        """Equal for plans whose rows share alike. Controls are told apart by identity: they live as long as edits."""
        controls = np.array([(row, source, id(control)) for row, source, control in self.controls], np.int64)
        blendings = np.array([(blending.row, id(blending.blend)) for blending in self.blendings], np.int64)
        return b"|".join(array.tobytes() for array in (self.self_source, controls, blendings))


def plan_sharing(
    rows: RowPlan, sharings: Sequence[Sharing | None], sources: Sequence[int | None], steps: Sequence[int]
) -> SharingPlan | None:
    """The sharing of a step of E edits; None where no edit has a source.

    Args:
        sharings: of each edit.
        sources: index of each edit's source in the plan, None for an edit that has none or whose source has left.
        steps: index of the step each edit is at.
    """
    if all(source is None for source in sources):
        return None
    place = {
        (int(e), bool(t), bool(i)): r for r, (e, t, i) in enumerate(zip(rows.edit, rows.text, rows.image, strict=True))
    }
    self_source = np.arange(len(rows.edit), dtype=np.int64)
    controls, blendings = [], []
    for edit, (sharing, source, step) in enumerate(zip(sharings, sources, steps, strict=True)):
        if sharing is None or source is None:
            continue
        control = sharing.text[step] if sharing.text else None
        for row in range(rows.row_start[edit], rows.row_start[edit + 1]):
            theirs = place[source, bool(rows.text[row]), bool(rows.image[row])]
            if sharing.self_steps[step]:
                self_source[row] = theirs
            if not rows.text[row]:
                continue
            if control is not None:
                controls.append((row, theirs, control))
            if (blend := sharing.blend) is not None:
                blendings.append(Blending(blend, edit, source, row, theirs, step >= blend.first_step))
    return SharingPlan(self_source, tuple(controls), tuple(blendings))
