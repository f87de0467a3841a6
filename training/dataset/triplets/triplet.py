"""A triplet, and the text in which a language model is asked for one and answers (InstructPix2Pix, section 3.1.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

AFTER_CAPTION, BETWEEN, END = "\n##\n", "\n%%\n", "\nEND"


@dataclass(frozen=True)
class Triplet:
    """A caption, an instruction, and the caption once the instruction is done."""

    caption: str
    edit: str
    output: str

    @property
    def changes_nothing(self) -> bool:
        """Whether the captions are equal but for case, white space and the punctuation at their ends."""
        return _plain(self.caption) == _plain(self.output)


class NotATriplet(ValueError):
    """A completion that is not in the format; the message says what is wrong with it."""


def prompt(caption: str) -> str:
    """What the language model is given."""
    return caption + AFTER_CAPTION


def completion(triplet: Triplet) -> str:
    """What it is to answer."""
    return triplet.edit + BETWEEN + triplet.output + END


def parse(caption: str, text: str) -> Triplet:
    """The triplet in a completion; everything from the end mark on is ignored, and the mark itself may be missing.

    Raises:
        NotATriplet: there is not exactly one separator, or a part is empty or holds a delimiter.
    """
    parts = text.split(END, 1)[0].split(BETWEEN)
    if len(parts) != 2:
        raise NotATriplet(f"{len(parts) - 1} separators in place of one")
    edit, output = (part.strip() for part in parts)
    for name, part in (("instruction", edit), ("edited caption", output)):
        if not part:
            raise NotATriplet(f"the {name} is empty")
        if "\n" in part or "##" in part or "%%" in part:
            raise NotATriplet(f"the {name} holds a delimiter or a line break")
    return Triplet(caption, edit, output)


def _plain(caption: str) -> str:
    return re.sub(r"\s+", " ", caption).strip().strip(".!?,;:").strip().casefold()
