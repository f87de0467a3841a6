"""Captions to triplets: the first stage of InstructPix2Pix's data (section 3.1.1), under the paper's rules."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ip2p_fast.errors import BadInput

from .captions import Caption
from .journal import Journal
from .triplet import NotATriplet, Triplet, parse
from .writers import Writer

Moderator = Callable[[Sequence[str]], bool]
"""Whether any of some texts is not to be used."""


@dataclass(frozen=True)
class Rules:
    """What is asked of captions and of what is written to them.

    longest: characters of a caption. retries: further tries when a completion is no triplet, each with another seed.
    strict: a caption that cannot be read stops the work instead of being counted. moderator: is shown caption,
    instruction and edited caption together.
    """

    longest: int = 400
    retries: int = 3
    strict: bool = False
    moderator: Moderator | None = None


def write_triplets(
    captions: Iterable[Caption],
    writer: Writer,
    journal: Journal,
    rules: Rules,
    seed: int = 0,
    batch: int = 16,
    advance: Callable[[int], None] = lambda inputs: None,
) -> dict[str, int]:
    """Has triplets written to the captions that the journal has not yet seen, and returns all counts by outcome.

    What is written to caption n depends on the caption, the seed and n, not on the batch or on interruptions.

    Args:
        advance: told the number of captions used so far.

    Raises:
        BadInput: a caption that cannot be read, under `rules.strict`.
    """
    sieve = _Sieve(rules)
    remaining = iter(captions)
    for caption in itertools.islice(remaining, journal.inputs):
        sieve.fault(caption)  # so that it knows what it has seen
    for group in _in_batches(remaining, batch):
        first = journal.inputs
        counts: Counter[str] = Counter()
        wanted: list[tuple[int, Caption]] = []
        for number, caption in enumerate(group, first):
            fault = sieve.fault(caption)
            if fault is None:
                wanted.append((number, caption))
            else:
                counts[fault] += 1
        written = _written([caption.text for _, caption in wanted], [n for n, _ in wanted], writer, rules, seed, counts)
        lines = []
        for (_, caption), triplet in zip(wanted, written, strict=True):
            if triplet is not None:
                url = {} if caption.url is None else {"url": caption.url}
                lines.append({"caption": triplet.caption, "edit": triplet.edit, "output": triplet.output, **url})
        counts["written"] += len(lines)
        journal.append(lines, len(group), counts)
        advance(journal.inputs)
    return journal.counts


class _Sieve:
    """Which captions are not asked for at all. It has to see every caption, in order."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._seen: set[str] = set()
        self._urls: set[str] = set()

    def fault(self, caption: Caption) -> str | None:
        """Why a caption is left out, or None.

        Raises:
            BadInput: it cannot be read, and the rules are strict.
        """
        if caption.fault is not None:
            if self._rules.strict:
                raise BadInput(f"line {caption.line}: {caption.fault}")
            return "unreadable"
        if not caption.text:
            return "empty"
        if len(caption.text) > self._rules.longest:
            return "too long"
        if caption.text in self._seen:
            return "repeated caption"
        if caption.url is not None and caption.url in self._urls:
            return "repeated url"
        self._seen.add(caption.text)
        if caption.url is not None:
            self._urls.add(caption.url)
        return None


def _written(
    captions: list[str], numbers: list[int], writer: Writer, rules: Rules, seed: int, counts: Counter[str]
) -> list[Triplet | None]:
    """A triplet for each caption, or None with its reason counted."""
    triplets: list[Triplet | None] = [None] * len(captions)
    waiting = list(range(len(captions)))
    for attempt in range(rules.retries + 1):
        if not waiting:
            break
        seeds = [_seed(seed, numbers[i], attempt) for i in waiting]
        texts = writer.write([captions[i] for i in waiting], seeds)
        failed = []
        for i, text in zip(waiting, texts, strict=True):
            try:
                triplets[i] = parse(captions[i], text)
            except NotATriplet:
                failed.append(i)
        counts["retried"] += len(failed) if attempt < rules.retries else 0
        waiting = failed
    counts["malformed"] += len(waiting)
    for i, triplet in enumerate(triplets):
        if triplet is None:
            continue
        if triplet.changes_nothing:
            counts["no change"] += 1
            triplets[i] = None
        elif rules.moderator is not None and rules.moderator((triplet.caption, triplet.edit, triplet.output)):
            counts["moderated"] += 1
            triplets[i] = None
    return triplets


def _seed(seed: int, number: int, attempt: int) -> int:
    return int(np.random.SeedSequence([seed, number, attempt]).generate_state(1, np.uint64)[0])


def _in_batches(captions: Iterator[Caption], size: int) -> Iterator[list[Caption]]:
    while group := list(itertools.islice(captions, size)):
        yield group
