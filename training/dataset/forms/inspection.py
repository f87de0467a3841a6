"""Looks a data set through: every record validated, the first ones drawn, what was measured drawn as histograms."""

from __future__ import annotations

import itertools
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ip2p_fast.errors import BadInput
from ip2p_fast.images import save_image

from ..pairs.selection import Thresholds
from .contact_sheet import draw_sheet
from .histograms import draw_histograms
from .record import SIMILARITIES, PairRecord, faults

SHEET, HISTOGRAMS = "sheet.png", "histograms.png"
PAPER_THRESHOLDS = Thresholds().by_similarity
"""Pairs below any of these were left out (InstructPix2Pix, section 3.1.2)."""

_DRAWN = 24
_NAMED = 5
_MEASURES = (*SIMILARITIES, "p", "cfg")


@dataclass(frozen=True)
class Inspection:
    """What was found.

    records, captions, instructions: how many, of the texts different ones. faulty: records with a fault. faults: how
    many records have each kind of fault. named: the first few, each with its key and its fault in full. means: of
    what is known and finite. passing: records at or above every threshold, None where no threshold was given.
    stopped: why the data set could not be read to its end.
    """

    records: int
    captions: int
    instructions: int
    faulty: int
    faults: dict[str, int]
    named: list[str]
    means: dict[str, float]
    passing: int | None
    stopped: str | None

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON's types."""
        return asdict(self)

    @property
    def complaint(self) -> str | None:
        """What is wrong with the data set in one line, or None."""
        found = []
        if self.faulty:
            found.append(f"{self.faulty} of {self.records} records are faulty ({self.named[0]})")
        if self.stopped is not None:
            found.append(f"reading stopped after {self.records} records: {self.stopped}")
        return "; ".join(found) or None


def inspect_pairs(
    records: Iterable[PairRecord],
    folder: Path,
    thresholds: Mapping[str, float] | None = None,
    limit: int | None = None,
    advance: Callable[[int], None] = lambda records: None,
) -> Inspection:
    """Validates records, all of them or the first `limit`, and draws sheet.png and histograms.png into `folder`.

    Args:
        thresholds: drawn into the histograms, by name (text_image_0, text_image_1, direction, image).
        advance: told the number of records seen so far.

    Raises:
        BadInput: there is no record at all, or the folder cannot be written.
        MissingExtra: matplotlib is absent.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror or error}") from error
    seen = _Seen(thresholds or {})
    stopped = None
    try:
        for record in itertools.islice(records, limit):
            seen.add(record)
            advance(seen.records)
    except BadInput as error:
        if not seen.records:
            raise
        stopped = str(error)
    if not seen.records:
        raise BadInput("there are no records to inspect")
    save_image(draw_sheet(seen.first, seen.first_faults), folder / SHEET)
    save_image(draw_histograms(seen.measures, thresholds or {}), folder / HISTOGRAMS)
    return seen.inspection(stopped)


class _Seen:
    """What is kept of records gone by: counts, numbers, and the first few for the sheet."""

    def __init__(self, thresholds: Mapping[str, float]) -> None:
        self.records = 0
        self.first: list[PairRecord] = []
        self.first_faults: list[str | None] = []
        self.measures = {name: array("d") for name in _MEASURES}
        self._thresholds = thresholds
        self._keys: set[str] = set()
        self._captions: set[str] = set()
        self._instructions: set[str] = set()
        self._faulty = self._passing = 0
        self._faults: Counter[str] = Counter()
        self._named: list[str] = []

    def add(self, record: PairRecord) -> None:
        found = faults(record)
        if record.key in self._keys:
            found.append("key: it was there before")
        if found:
            self._faulty += 1
            self._faults.update({fault.partition(":")[0] for fault in found})
            if len(self._named) < _NAMED:
                self._named.append(f"{record.key}: {'; '.join(found)}")
        if len(self.first) < _DRAWN:
            self.first.append(record)
            self.first_faults.append("; ".join(found) or None)
        self.records += 1
        self._keys.add(record.key)
        self._instructions.add(record.instruction)
        if record.caption is not None:
            self._captions.add(record.caption)
        known = dict(_known(record))
        for name, value in known.items():
            if math.isfinite(value):
                self.measures[name].append(value)
        self._passing += all(known.get(name, float("-inf")) >= limit for name, limit in self._thresholds.items())

    def inspection(self, stopped: str | None) -> Inspection:
        return Inspection(
            records=self.records,
            captions=len(self._captions),
            instructions=len(self._instructions),
            faulty=self._faulty,
            faults=dict(self._faults.most_common()),
            named=self._named,
            means={name: sum(values) / len(values) for name, values in self.measures.items() if values},
            passing=self._passing if self._thresholds else None,
            stopped=stopped,
        )


def _known(record: PairRecord) -> Iterator[tuple[str, float]]:
    if record.similarities is not None:
        yield from ((name, getattr(record.similarities, name)) for name in SIMILARITIES)
    yield from ((name, value) for name, value in (("p", record.p), ("cfg", record.cfg)) if value is not None)
