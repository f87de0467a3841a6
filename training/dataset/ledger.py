"""What a growing output was made with and how far it has come: a small JSON file, replaced whole at every step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

from ip2p_fast.errors import BadInput


class Ledger:
    """inputs: how many inputs are done. counts: of what became of them. place: where the output stands.

    An output is written first and the ledger then: what the output has beyond its ledger's word is cut off, and done
    again. So a process that dies between the two has lost nothing and repeats nothing.
    """

    def __init__(self, path: Path, output: Path, settings: Mapping[str, Any], resume: bool) -> None:
        """
        Args:
            path: of the ledger. output: what it speaks of, for messages.
            settings: what the output depends on.

        Raises:
            BadInput: there is an output and `resume` is not given, it was made with other settings, or not by us.
        """
        self.path = path
        # as they read back, so that a tuple equals the list it was written as
        self._settings = json.loads(json.dumps(dict(settings)))
        self.inputs = 0
        self.counts: dict[str, int] = {}
        self.place: dict[str, Any] = {}
        if not (path.exists() or _holds_something(output)):
            return
        if not resume:
            raise BadInput(f"{output} is there already: go on with --resume, or choose another output")
        self._load(output)

    def save(self, inputs: int = 0, counts: Mapping[str, int] | None = None, **place: Any) -> None:
        """Adds `inputs` and `counts`, and notes the place.

        Raises:
            OSError: the disk is full, among others; the ledger and what it was before are kept.
        """
        added = dict(self.counts)
        for name, count in (counts or {}).items():
            added[name] = added.get(name, 0) + count
        state = {"inputs": self.inputs + inputs, "counts": added, "settings": self._settings, **place}
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(state, file)
            to_disk(file)
        partial.replace(self.path)
        self.inputs, self.counts, self.place = self.inputs + inputs, added, place

    def _load(self, output: Path) -> None:
        try:
            state = json.loads(self.path.read_text(encoding="utf-8"))
            before, self.inputs, self.counts = state.pop("settings"), state.pop("inputs"), state.pop("counts")
        except FileNotFoundError as error:
            raise BadInput(f"{output} has no {self.path.name} beside it: it is not ours to go on with") from error
        except (OSError, ValueError, KeyError) as error:
            raise BadInput(f"{self.path} cannot be read ({error!r}): remove it and {output}") from error
        differing = [name for name in {**before, **self._settings} if before.get(name) != self._settings.get(name)]
        if differing:
            said = ", ".join(
                f"{name} {before.get(name)!r} then, {self._settings.get(name)!r} now" for name in differing
            )
            raise BadInput(f"{output} was made with other settings: {said}")
        self.place = state


def opened_at(path: Path, size: int) -> BinaryIO:
    """A file to write on behind its first `size` bytes, in place of what is there."""
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def to_disk(file: IO[Any]) -> None:
    """Returns when all that was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _holds_something(output: Path) -> bool:
    """Whether there is a file, or a folder with more in it than a ledger that was never finished."""
    if not output.is_dir():
        return output.exists()
    return any(entry.suffix != ".partial" for entry in output.iterdir())
