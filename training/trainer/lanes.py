"""The order in which records are read: streamed, shuffled, divided, and picked up again where it stopped.

The data is a list of pieces (files) that are read in L lanes. In each epoch the pieces are shuffled and dealt to the
lanes; a lane reads its pieces one after the other, in blocks of records that are shuffled among each other, and then
goes on with the next epoch's. Fewer pieces than lanes make fewer lanes: the largest power of two that is not above
either. The lanes, and so the order, depend on the seed, the data and the recipe, not on who reads them.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from ip2p_fast.errors import BadInput

from ..dataset.forms.formats import pieces_of, read_pairs
from ..dataset.forms.record import PairRecord
from .draws import Purpose, rng_of
from .faults import Faults
from .recipe import Recipe

_SHARES = 1 << 20


@dataclass(frozen=True)
class Mark:
    """Where a block of a lane begins: records of the lane before it, epoch, place among its pieces, record in that."""

    count: int = 0
    epoch: int = 0
    piece: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Order:
    """What the order follows from.

    group  records of a block that follow each other and have similar shapes; 1 where shapes do not matter
    block  records that are shuffled among each other, a multiple of `group`
    """

    pieces: tuple[str, ...]
    lanes: int
    group: int
    block: int
    seed: int
    held_out: float


@dataclass(frozen=True)
class Place:
    """A record in its block. Where it turns out to be broken, the ones that follow it in the block take its place."""

    mark: Mark
    block: list[PairRecord]
    number: int

    def candidates(self) -> Iterator[PairRecord]:
        """The record, then those that take its place."""
        return (self.block[(self.number + i) % len(self.block)] for i in range(len(self.block)))

    def group(self, size: int) -> list[PairRecord]:
        """The records of its group."""
        first = self.number // size * size
        return self.block[first : first + size]


def order_of(sources: list[str], recipe: Recipe) -> Order:
    """The order of some sources' records.

    Raises:
        BadInput: there is no such source, its form is unknown, or nothing in it can be read; the message of the last
            names the columns where it has wrong ones.
    """
    pieces = []
    for source in sources:
        found = pieces_of(source)
        _require_readable(source, found)
        pieces += found
    lanes = 2 ** int(math.log2(min(recipe.lanes, len(pieces))))
    group = recipe.batch if recipe.buckets else 1
    block = max(1, recipe.buffer // lanes // group) * group
    return Order(tuple(pieces), lanes, group, block, recipe.seed, recipe.held_out)


class Lane:
    """One lane, read forwards from a mark."""

    def __init__(self, order: Order, number: int, faults: Faults, mark: Mark | None = None) -> None:
        self._blocks = _blocks(order, number, faults, mark or Mark())
        self._mark, self._block = next(self._blocks)

    def at(self, count: int) -> Place:
        """The record that `count` others of the lane come before. Asked for in ascending order."""
        while count >= self._mark.count + len(self._block):
            self._mark, self._block = next(self._blocks)
        return Place(self._mark, self._block, count - self._mark.count)


def held_out(record: PairRecord, share: float) -> bool:
    """Whether a record is for validation: by a hash of its captions, so that pairs of one caption stay together.

    Records without captions are told apart by their keys.
    """
    name = record.key if record.caption is None else f"{record.caption}\n{record.instruction}"
    return zlib.crc32(name.encode()) % _SHARES < share * _SHARES


def held_out_records(order: Order, count: int, faults: Faults) -> list[PairRecord]:
    """The first records for validation, in the order of the files; fewer than `count` where there are no more."""
    found: list[PairRecord] = []
    for piece in order.pieces:
        for _, record in _read(piece, 0, faults):
            if len(found) == count:
                return found
            if held_out(record, order.held_out):
                found.append(record)
    return found


def training_records(order: Order, faults: Faults) -> Iterator[PairRecord]:
    """All records for training once, in the order of the files."""
    for piece in order.pieces:
        for _, record in _read(piece, 0, faults):
            if _trains(piece, record, order, faults):
                yield record


def _trains(piece: str, record: PairRecord, order: Order, faults: Faults) -> bool:
    if not record.instruction.strip():
        faults.add(f"{piece}, {record.key}", "instruction: it is empty")
        return False
    return not held_out(record, order.held_out)


def _require_readable(source: str, pieces: list[str]) -> None:
    cause: BadInput | None = None
    for piece in pieces:
        try:
            if next(iter(read_pairs(piece)), None) is not None:
                return
        except BadInput as error:
            cause = cause or error
    raise cause or BadInput(f"{source} holds no records")


def _blocks(order: Order, number: int, faults: Faults, mark: Mark) -> Iterator[tuple[Mark, list[PairRecord]]]:
    """Blocks end with an epoch, so that a record is not seen again before all others of the lane were."""
    count, epoch, piece, offset = mark.count, mark.epoch, mark.piece, mark.offset
    while True:
        begun = (piece, offset) != (0, 0)
        start, block = Mark(count, epoch, piece, offset), []
        for place, behind, record in _epoch(order, number, epoch, piece, offset, faults):
            block.append(record)
            if len(block) == order.block:
                yield start, _shuffled(order, number, start, block)
                begun = True
                count += len(block)
                start, block = Mark(count, epoch, place, behind), []
        if not begun and not block:
            raise BadInput(
                f"the data has too few usable records for its {order.lanes} lanes: none is left for lane {number}; "
                "give more data, or fewer --lanes"
            )
        if not begun and len(block) < order.group:
            block = (block * order.group)[: order.group]
        whole = len(block) // order.group * order.group
        if whole:
            yield start, _shuffled(order, number, start, block[:whole])
        count += whole
        epoch, piece, offset = epoch + 1, 0, 0


def _epoch(
    order: Order, number: int, epoch: int, piece: int, offset: int, faults: Faults
) -> Iterator[tuple[int, int, PairRecord]]:
    """The lane's records for training from a place on, each with the place behind it."""
    dealt = rng_of(order.seed, Purpose.FILES, epoch).permutation(len(order.pieces))[number :: order.lanes]
    for place in range(piece, len(dealt)):
        name = order.pieces[dealt[place]]
        for behind, record in _read(name, offset if place == piece else 0, faults):
            if _trains(name, record, order, faults):
                yield place, behind, record


def _read(piece: str, offset: int, faults: Faults) -> Iterator[tuple[int, PairRecord]]:
    """The records of a piece from one on, each with its number plus one. What cannot be read is a fault."""
    behind = 0
    try:
        for behind, record in enumerate(read_pairs(piece), 1):
            if behind > offset:
                yield behind, record
    except BadInput as error:
        faults.add(piece, f"{error}; {behind} records before that were read")
        return
    if not behind:
        faults.add(piece, "it holds no records")


def _shuffled(order: Order, number: int, start: Mark, block: list[PairRecord]) -> list[PairRecord]:
    """Its records in another order; its groups, where shapes matter, each of records of similar shapes."""
    rng = rng_of(order.seed, Purpose.BLOCK, number, start.count)
    if order.group == 1:
        return [block[i] for i in rng.permutation(len(block))]
    # shuffled first, so that which of the many of one shape come together is chance too
    by_shape = sorted((block[i] for i in rng.permutation(len(block))), key=aspect)
    firsts = rng.permutation(range(0, len(block), order.group))
    return [record for first in firsts for record in by_shape[first : first + order.group]]


def aspect(record: PairRecord) -> float:
    """Width to height of the input picture, of its header alone; 1 where that cannot be read."""
    try:
        with Image.open(io.BytesIO(record.input_image)) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # the orientation, of which four swap the sides
            width, height = image.size
    except Exception:  # Pillow raises almost any type on damaged data; decoding will tell
        return 1.0
    return height / width if turned else width / height
