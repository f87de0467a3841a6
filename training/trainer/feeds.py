"""Where a process's samples come from: records that are read, decoded and encoded as they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple
from typing import Protocol, TypeAlias

import numpy as np
from torch import Tensor

from ip2p_fast.errors import BadInput

from ..dataset.forms.record import PairRecord
from .draws import Purpose, rng_of
from .encoding import encode_pairs, encode_texts, targets
from .faults import Faults
from .lanes import Lane, Mark, Order, Place
from .parts import Parts
from .pictures import pixels_of, shape_for, shapes_of
from .recipe import Recipe

Encoded: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Image, target and text of `Batch`."""

_AHEAD = 2
"""Batches that are decoded while one is trained on."""


class Feed(Protocol):
    """Gives the samples of some places."""

    def batches(
        self, places: Iterator[list[int]], marks: dict[str, list[int]]
    ) -> Iterator[tuple[list[int], Encoded, dict[str, list[int]]]]:
        """For each list of places: itself, its samples, and where its lanes stand, from which `marks` to go on."""
        ...


class StreamFeed:
    """Reads lanes in the calling thread, decodes pictures in `Recipe.workers` others, encodes batch by batch."""

    def __init__(self, order: Order, parts: Parts, recipe: Recipe, faults: Faults) -> None:
        self._order, self._parts, self._recipe, self._faults = order, parts, recipe, faults
        self._shapes = _shapes(parts, recipe)

    def batches(
        self, places: Iterator[list[int]], marks: dict[str, list[int]]
    ) -> Iterator[tuple[list[int], Encoded, dict[str, list[int]]]]:
        lanes: dict[int, Lane] = {}
        waiting: deque[tuple[list[int], list[Future[tuple[np.ndarray, str]]], dict[str, list[int]]]] = deque()
        with ThreadPoolExecutor(self._recipe.workers, "decoding") as pool:
            try:
                for indices in places:
                    found = [self._place(index, lanes, marks) for index in indices]
                    shape = self._shape(found)
                    reached = {str(lane): list(astuple(place.mark)) for lane, place in found}
                    samples = [
                        pool.submit(self._sample, place, index, shape)
                        for index, (_, place) in zip(indices, found, strict=True)
                    ]
                    waiting.append((indices, samples, reached))
                    if len(waiting) > _AHEAD:
                        yield self._encoded(*waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _place(self, index: int, lanes: dict[int, Lane], marks: dict[str, list[int]]) -> tuple[int, Place]:
        """The lane of a place in the stream, and the place in it: places are dealt to the lanes a group at a time."""
        group, count = self._order.group, self._order.lanes
        number = index // group % count
        if number not in lanes:
            mark = marks.get(str(number))
            lanes[number] = Lane(self._order, number, self._faults, None if mark is None else Mark(*mark))
        return number, lanes[number].at(index // (group * count) * group + index % group)

    def _shape(self, found: Sequence[tuple[int, Place]]) -> tuple[int, int]:
        if len(self._shapes) == 1:
            return self._shapes[0]
        return shape_for(found[0][1].group(self._order.group), self._shapes)

    def _sample(self, place: Place, index: int, shape: tuple[int, int]) -> tuple[np.ndarray, str]:
        for record in place.candidates():
            rng = rng_of(self._recipe.seed, Purpose.AUGMENTATION, index)
            try:
                return pixels_of(record, shape, rng, self._recipe.zoom, self._recipe.flip), record.instruction
            except BadInput as error:
                self._faults.add(record.key, str(error))
        raise BadInput(f"none of {len(place.block)} records in a row can be used; {record.key} is the last of them")

    def _encoded(
        self, indices: list[int], samples: list[Future[tuple[np.ndarray, str]]], reached: dict[str, list[int]]
    ) -> tuple[list[int], Encoded, dict[str, list[int]]]:
        pixels, texts = zip(*(sample.result() for sample in samples), strict=True)
        image, mean, deviation = encode_pairs(self._parts, np.stack(pixels), self._recipe.precision)
        drawn = deviation if self._recipe.sampled_latents else None
        target = targets(self._parts, mean, drawn, indices, self._recipe.seed)
        return indices, (image, target, encode_texts(self._parts, texts, self._recipe.precision)), reached


def validation_batch(
    records: Sequence[PairRecord], parts: Parts, recipe: Recipe
) -> tuple[list[PairRecord], Encoded] | None:
    """The records that can be used and their samples, cropped in the middle, targets the mode; None without any."""
    shape = (recipe.resolution, recipe.resolution)
    used, pixels = [], []
    for record in records:
        with suppress(BadInput):  # what is wrong with them is told where training reads
            pixels.append(pixels_of(record, shape, None))
            used.append(record)
    if not used:
        return None
    image, mean, _ = encode_pairs(parts, np.stack(pixels), recipe.precision)
    text = encode_texts(parts, [record.instruction for record in used], recipe.precision)
    return used, (image, targets(parts, mean, None, (), 0), text)


def _shapes(parts: Parts, recipe: Recipe) -> list[tuple[int, int]]:
    square = (recipe.resolution, recipe.resolution)
    return shapes_of(recipe.resolution, parts.multiple) if recipe.buckets else [square]
