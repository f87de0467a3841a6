"""A file of JSON lines that survives kill -9: every line whole, none twice, and it knows where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ip2p_fast.errors import BadInput


class Journal:
    """PATH holds the lines, PATH.state what they came from: inputs used, bytes written, counts, and the settings.

    The state is replaced whole, after the lines it speaks of are on disk; lines behind it are cut off on opening. So a
    process that dies between the two has written nothing that counts, and does that batch again.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], resume: bool = False) -> None:
        """
        Raises:
            BadInput: the file is there and `resume` is not given, or it was made with other settings.
        """
        self.path, self._state_path = path, path.with_name(path.name + ".state")
        # as they read back, so that a tuple equals the list it was written as
        self._settings = json.loads(json.dumps(dict(settings)))
        self.inputs = 0
        self.counts: dict[str, int] = {}
        kept = 0
        if path.exists() or self._state_path.exists():
            if not resume:
                raise BadInput(f"{path} is there already: go on with --resume, or choose another output")
            kept = self._load()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # the state first: lines without a state would be nobody's
            self._save(kept)
            self._file = path.open("r+b" if path.exists() else "w+b")
        except OSError as error:
            raise BadInput(f"{path} cannot be written: {error.strerror}") from error
        self._file.truncate(kept)
        self._file.seek(kept)

    def append(self, lines: Iterable[Mapping[str, Any]], inputs: int, counts: Mapping[str, int]) -> None:
        """Adds lines, `inputs` more inputs used and `counts` to the counts, all or nothing.

        Raises:
            OSError: the disk is full, among others; what was there before is kept.
        """
        text = "".join(json.dumps(dict(line), ensure_ascii=False) + "\n" for line in lines)
        self._file.write(text.encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.inputs += inputs
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self._save(self._file.tell())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _load(self) -> int:
        try:
            state = json.loads(self._state_path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise BadInput(
                f"{self.path} has no {self._state_path.name} beside it: it is not ours to go on with"
            ) from error
        except (OSError, ValueError) as error:
            raise BadInput(f"{self._state_path} cannot be read ({error}): remove it and {self.path}") from error
        before = state["settings"]
        differing = [name for name in {**before, **self._settings} if before.get(name) != self._settings.get(name)]
        if differing:
            said = ", ".join(
                f"{name} {before.get(name)!r} then, {self._settings.get(name)!r} now" for name in differing
            )
            raise BadInput(f"{self.path} was made with other settings: {said}")
        if (self.path.stat().st_size if self.path.exists() else 0) < state["bytes"]:
            raise BadInput(f"{self.path} is shorter than {self._state_path} says: it was changed by someone else")
        self.inputs, self.counts = state["inputs"], state["counts"]
        return int(state["bytes"])

    def _save(self, size: int) -> None:
        state = {
            "inputs": self.inputs,
            "bytes": size,
            "counts": self.counts,
            "settings": self._settings,
        }
        partial = self._state_path.with_name(self._state_path.name + ".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._state_path)
