"""Triplets to pairs of pictures: draw many samples of each, keep the few that CLIP approves of, lose nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ip2p_fast.errors import BadInput

from ..forms.record import PairRecord, Similarities
from ..triplets.triplet import Triplet
from .clip_scores import ClipScorer
from .generator import PairGenerator, Pictures
from .pair_store import PairStore
from .samples import Draws, Sample, draw_samples
from .selection import Thresholds, select

QUALITY = 100
"""Of the JPEGs, as the original's."""


@dataclass(frozen=True)
class Choice:
    """What is drawn and kept. filtered: False keeps the first samples, whatever CLIP says. seed: of all draws."""

    draws: Draws = field(default_factory=Draws)
    thresholds: Thresholds = field(default_factory=Thresholds)
    filtered: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Numbered:
    """A line of a triplets file, from 0; fault: why it is no triplet, where it is none."""

    number: int
    triplet: Triplet | None
    fault: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of one line."""

    number: int
    records: list[PairRecord]
    counts: dict[str, int]


def read_triplets(path: Path) -> Iterator[Numbered]:
    """The lines of a triplets file: caption (or input), edit, output.

    Raises:
        BadInput: there is no such file.
    """
    if not path.is_file():
        raise BadInput(f"{path} is not there: make triplets with `ip2p-fast dataset triplets`")
    return _read_lines(path)


def make_pairs(
    lines: Iterable[Numbered],
    make: Callable[[Iterable[Numbered]], Iterator[Outcome]],
    store: PairStore,
    strict: bool = False,
    advance: Callable[[int, dict[str, int]], None] = lambda inputs, counts: None,
) -> dict[str, int]:
    """Has pairs made of the lines that the store has not yet seen, and returns all counts by outcome.

    Args:
        make: `PairMaker.make`, or the same by other processes. Outcomes may come in any order.
        advance: told the number of lines done and the counts so far.

    Raises:
        BadInput: a line that is no triplet, under `strict`; the store cannot be written.
    """

    def left() -> Iterator[Numbered]:
        for line in lines:
            if line.number < store.inputs:
                continue
            if strict and line.fault is not None:
                raise BadInput(f"line {line.number + 1}: {line.fault}")
            yield line

    early: dict[int, Outcome] = {}
    for outcome in make(left()):
        early[outcome.number] = outcome
        while (following := early.pop(store.inputs, None)) is not None:
            store.append(following.records, 1, following.counts)
            advance(store.inputs, store.counts)
    store.finish()
    return store.counts


class PairMaker:
    """Makes the pairs of triplets. What comes of a triplet depends on its texts and the choice's seed alone."""

    def __init__(self, generator: PairGenerator, scorer: ClipScorer, choice: Choice, longest: int = 400) -> None:
        """longest: characters of a caption; triplets with longer ones are left out."""
        self._generator, self._scorer, self._choice, self._longest = generator, scorer, choice, longest

    def make(self, lines: Iterable[Numbered]) -> Iterator[Outcome]:
        """The outcome of each line, in the order in which they are done; many samples are in flight at once."""
        at_work: dict[int, _Work] = {}
        refused: list[Outcome] = []

        def jobs() -> Iterator[tuple[tuple[int, int], tuple[str, str], Sample]]:
            for line in lines:
                fault = "unreadable" if line.triplet is None else self._fault(line.triplet)
                if line.triplet is None or fault is not None:
                    refused.append(Outcome(line.number, [], {str(fault): 1}))
                    continue
                captions = (line.triplet.caption, line.triplet.output)
                samples = draw_samples(captions, self._choice.draws, self._choice.seed)
                at_work[line.number] = _Work(line.triplet, samples)
                for index, sample in enumerate(samples):
                    yield (line.number, index), captions, sample

        for (number, index), pictures in self._generator.generate(jobs()):
            yield from _taken(refused)
            work = at_work[number]
            work.pictures[index] = pictures
            if len(work.pictures) == len(work.samples):
                yield self._outcome(number, at_work.pop(number))
        yield from _taken(refused)

    def _fault(self, triplet: Triplet) -> str | None:
        if not all(vars(triplet).values()):
            return "empty"
        captions = (triplet.caption, triplet.output)
        if any(len(caption) > self._longest for caption in captions):
            return "too long"
        return self._generator.fault(captions)

    def _outcome(self, number: int, work: _Work) -> Outcome:
        captions = (work.triplet.caption, work.triplet.output)
        before, after = zip(*(work.pictures[index] for index in range(len(work.samples))), strict=True)
        similarities = self._scorer.score(captions, before, after)
        kept, counts = select(similarities, self._choice.thresholds, self._choice.filtered)
        records = [_record(number, work.triplet, work.samples[i], (before[i], after[i]), similarities[i]) for i in kept]
        named = {f"samples {name}": count for name, count in counts.items()}
        return Outcome(number, records, {"done": 1, **({} if kept else {"without a pair": 1}), **named})


@dataclass
class _Work:
    """A triplet in the making; pictures by the sample's index."""

    triplet: Triplet
    samples: list[Sample]
    pictures: dict[int, Pictures] = field(default_factory=dict)


def _read_lines(path: Path) -> Iterator[Numbered]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines):
            yield _numbered(number, line)


def _numbered(number: int, line: str) -> Numbered:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        return Numbered(number, None, f"not JSON: {error.msg}")
    if not isinstance(row, dict):
        return Numbered(number, None, "not a JSON object")
    parts = {"caption": row.get("caption", row.get("input")), "edit": row.get("edit"), "output": row.get("output")}
    texts = {name: " ".join(part.split()) for name, part in parts.items() if isinstance(part, str)}
    if missing := [name for name in parts if name not in texts]:
        return Numbered(number, None, f"no text {missing[0]!r}")
    return Numbered(number, Triplet(**texts))


def _record(
    number: int, triplet: Triplet, sample: Sample, pictures: Pictures, similarities: Similarities
) -> PairRecord:
    return PairRecord(
        key=f"{number:07d}-{sample.seed:010d}",
        input_image=_jpeg(pictures[0]),
        edited_image=_jpeg(pictures[1]),
        instruction=triplet.edit,
        caption=triplet.caption,
        edited_caption=triplet.output,
        seed=sample.seed,
        p=sample.p,
        cfg=sample.cfg,
        similarities=similarities,
    )


def _jpeg(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # colour is not halved: at 64 pixels that would be seen
    Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def _taken(outcomes: list[Outcome]) -> list[Outcome]:
    taken, outcomes[:] = list(outcomes), []
    return taken
