"""Batches for training: latents of pairs and their instructions, in an order that no division among processes changes.

Samples are numbered by their place in one endless stream. With N processes and batches of B, round n is the places
[n N B, (n + 1) N B), of which each process takes its share. So what a step sees depends on how many samples it has,
not on how many processes share them. With `Recipe.buckets` a batch is B places in a row, of one shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, arange, tensor

from ip2p_fast.errors import BadInput

from ..dataset.forms.record import PairRecord
from .cache import Cache
from .encoding import encode_texts
from .faults import Faults
from .feeds import Feed, StreamFeed, validation_batch
from .lanes import held_out_records, order_of
from .parts import Parts, load_parts
from .pictures import require_multiple
from .recipe import Recipe

__all__ = ["Batch", "Batches", "Parts", "Recipe", "held_out_batches", "load_parts", "make_batches", "merged"]


@dataclass(frozen=True)
class Batch:
    """B samples, on the device of the networks that encoded them.

    image    [B, 4, h, w] float32  mode of the input picture's latents, not scaled
    target   [B, 4, h, w] float32  latents of the edited picture, scaled
    text     [B, 77, D] float32    the encoded instruction
    null     [1, 77, D] float32    encode("")
    indices  [B] int64 on the CPU  places in the stream: what everything random of a sample derives from
    """

    image: Tensor
    target: Tensor
    text: Tensor
    null: Tensor
    indices: Tensor


class Batches:
    """Iterates the batches of one process, for ever. `skipped` are the faults found so far, by name."""

    def __init__(self, feed: Feed, null: Tensor, size: int, group: int, rank: int, world: int, faults: Faults) -> None:
        self._feed, self._null = feed, null
        self._size, self._group, self._rank, self._world = size, group, rank, world
        self._position = 0
        self._marks: dict[str, list[int]] = {}
        self._faults = faults

    @property
    def skipped(self) -> dict[str, str]:
        return dict(self._faults.found)

    def __iter__(self) -> Iterator[Batch]:
        for indices, (image, target, text), marks in self._feed.batches(self._places(), self._marks):
            self._position += self._size * self._world
            self._marks = {**self._marks, **marks}
            yield Batch(image, target, text, self._null, tensor(indices))

    def state(self) -> dict[str, Any]:
        """Where the stream stands after the last batch: the samples before it, and where this process's lanes stand."""
        return {"position": self._position, "marks": dict(self._marks)}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state of the same sources and recipe, of any number of processes (`merged`).

        Raises:
            BadInput: the position is not between two of this number's batches.
        """
        if state["position"] % (self._size * self._world):
            raise BadInput(
                f"the data stands at sample {state['position']}, which is not between two batches of {self._size} in "
                f"{self._world} processes: choose another batch or number of processes"
            )
        self._position, self._marks = state["position"], dict(state["marks"])

    def _places(self) -> Iterator[list[int]]:
        """This process's places, a batch at a time, from the position on."""
        around = self._size * self._world
        for first in itertools.count(self._position, around):
            if self._group > 1:
                yield list(range(first + self._rank * self._size, first + (self._rank + 1) * self._size))
            else:
                yield list(range(first + self._rank, first + around, self._world))


def make_batches(sources: Sequence[str], parts: Parts, recipe: Recipe, rank: int = 0, world: int = 1) -> Batches:
    """The batches of process `rank` of `world`, encoded by `parts` where these are.

    Args:
        sources: of `read_pairs`, as many as wanted: their records are shuffled together.

    Raises:
        BadInput: a source that is not there or has other columns, a resolution that the model cannot take; while
            iterating, with `Recipe.strict`, a record or file that cannot be used.
    """
    require_multiple(recipe.resolution, parts.multiple)
    faults = Faults(recipe.strict)
    order = order_of(list(sources), recipe)
    null = encode_texts(parts, [""], recipe.precision)
    feed: Feed
    if recipe.cache:
        feed = Cache.made(order, parts, recipe, rank, world, faults)
    else:
        feed = StreamFeed(order, parts, recipe, faults)
    return Batches(feed, null, recipe.batch, order.group, rank, world, faults)


def merged(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One state of those of all processes, which stand at the same position."""
    marks: dict[str, list[int]] = {}
    for state in states:
        for lane, mark in state["marks"].items():
            # of a lane that several read, the one that has come furthest, which is not behind the position
            marks[lane] = max(mark, marks.get(lane, mark))
    return {"position": states[0]["position"], "marks": marks}


def held_out_batches(sources: Sequence[str], parts: Parts, recipe: Recipe) -> tuple[list[PairRecord], list[Batch]]:
    """The first `Recipe.validation` held-out records that can be used, and their batches: always the same ones.

    Pictures are cropped in the middle; `indices` number the records. Both are empty when nothing is held out.
    """
    order = order_of(list(sources), recipe)
    found = held_out_records(order, recipe.validation, Faults()) if recipe.validation else []
    null = encode_texts(parts, [""], recipe.precision)
    used: list[PairRecord] = []
    batches: list[Batch] = []
    for first in range(0, len(found), recipe.batch):
        usable = validation_batch(found[first : first + recipe.batch], parts, recipe)
        if usable is not None:
            records, (image, target, text) = usable
            batches.append(Batch(image, target, text, null, arange(len(used), len(used) + len(records))))
            used += records
    return used, batches
