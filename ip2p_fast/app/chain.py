"""The history of a page: pictures, each but the first made from an earlier one, with a way back and forth.

A chain is never changed: every action gives a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from PIL import Image

from ..errors import BadInput

MAX_PICTURES = 50
"""Pictures that a chain keeps. The oldest that the shown one does not come from are forgotten first."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A picture and what it was made of. The picture that a chain starts from has neither source nor seed."""

    picture: Image.Image
    instruction: str = ""
    seed: int | None = None
    source: Entry | None = None


@dataclass(frozen=True, eq=False)
class Chain:
    """
    entries  every picture, in the order they came
    shown    the one that is looked at
    base     the one that the next edit changes: the shown one, or its source while results are being tried
    undone   what `undo` left, the latest last
    """

    entries: tuple[Entry, ...]
    shown: Entry
    base: Entry
    undone: tuple[Entry, ...] = ()

    @property
    def compares(self) -> bool:
        """Whether the shown picture is looked at as a result, beside what it was made of."""
        return self.shown is not self.base

    @property
    def at(self) -> int:
        """The shown picture's place among `entries`."""
        return self.entries.index(self.shown)


def start(picture: Image.Image) -> Chain:
    """A chain of one picture."""
    first = Entry(picture)
    return Chain((first,), first, first)


def add(chain: Chain, picture: Image.Image, instruction: str, seed: int) -> Chain:
    """Shows a result made from the chain's base.

    Raises BadInput where a chain of MAX_PICTURES edits was made one from the other.
    """
    result = Entry(picture, instruction, seed, chain.base)
    needed = set(_line(result))
    spare = [entry for entry in chain.entries if entry not in needed]
    if len(needed) > MAX_PICTURES:
        raise BadInput(f"the history holds {MAX_PICTURES} pictures: download this one and start again from it")
    forgotten = set(spare[: max(0, len(chain.entries) + 1 - MAX_PICTURES)])
    kept = tuple(entry for entry in chain.entries if entry not in forgotten)
    return Chain((*kept, result), result, chain.base)


def keep(chain: Chain) -> Chain:
    """The next edit goes on from the shown picture."""
    return replace(chain, base=chain.shown)


def show(chain: Chain, index: int) -> Chain:
    """Shows an earlier picture beside its source. Raises BadInput where there is none at this place."""
    if not 0 <= index < len(chain.entries):
        raise BadInput(f"the history has no picture {index}: it has {len(chain.entries)}")
    return _looking_at(chain, chain.entries[index], ())


def can_undo(chain: Chain) -> bool:
    return chain.shown.source is not None


def undo(chain: Chain) -> Chain:
    """Back to what the shown picture was made of, which is also what the next edit changes."""
    source = chain.shown.source
    if source is None:
        return chain
    return Chain(chain.entries, source, source, (*chain.undone, chain.shown))


def redo(chain: Chain) -> Chain:
    """What the last `undo` left, beside what it was made of."""
    if not chain.undone:
        return chain
    return _looking_at(chain, chain.undone[-1], chain.undone[:-1])


def _looking_at(chain: Chain, entry: Entry, undone: tuple[Entry, ...]) -> Chain:
    return Chain(chain.entries, entry, entry.source or entry, undone)


def _line(entry: Entry) -> Iterator[Entry]:
    """The entry and all it comes from."""
    at: Entry | None = entry
    while at is not None:
        yield at
        at = at.source
