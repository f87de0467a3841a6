"""A file of JSON lines that survives kill -9: every line whole, none twice, and it knows where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ip2p_fast.errors import BadInput

from ..ledger import Ledger, opened_at, to_disk


class Journal:
    """PATH holds the lines, PATH.state what they came from: a `Ledger` whose place is the bytes that count."""

    def __init__(self, path: Path, settings: Mapping[str, Any], resume: bool = False) -> None:
        """
        Raises:
            BadInput: the file is there and `resume` is not given, or it was made with other settings.
        """
        self.path = path
        self._ledger = Ledger(path.with_name(path.name + ".state"), path, settings, resume)
        kept = int(self._ledger.place.get("bytes", 0))
        if (path.stat().st_size if path.exists() else 0) < kept:
            raise BadInput(f"{path} is shorter than {self._ledger.path} says: it was changed by someone else")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # the state first: lines without a state would be nobody's
            self._ledger.save(bytes=kept)
            self._file = opened_at(path, kept)
        except OSError as error:
            raise BadInput(f"{path} cannot be written: {error.strerror}") from error

    @property
    def inputs(self) -> int:
        """How many inputs are done."""
        return self._ledger.inputs

    @property
    def counts(self) -> dict[str, int]:
        """How many inputs had which outcome."""
        return self._ledger.counts

    def append(self, lines: Iterable[Mapping[str, Any]], inputs: int, counts: Mapping[str, int]) -> None:
        """Adds lines, `inputs` more inputs used and `counts` to the counts, all or nothing.

        Raises:
            OSError: the disk is full, among others; what was there before is kept.
        """
        text = "".join(json.dumps(dict(line), ensure_ascii=False) + "\n" for line in lines)
        self._file.write(text.encode())
        to_disk(self._file)
        self._ledger.save(inputs, counts, bytes=self._file.tell())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
