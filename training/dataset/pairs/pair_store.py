"""A folder of shards that survives kill -9: every shard whole, no record lost or twice, and it knows where it stopped.

OUT/pairs-00000.tar, ... are whole shards (`shards`). The one that grows has its name behind a dot and with .part.
OUT/shards.jsonl has a line for each whole one: name, records, bytes, SHA-256. OUT/manifest.json is the ledger: what the
set is made with, counts, and how much of all this holds. It stays small however large the set grows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ip2p_fast.errors import BadInput
from ip2p_fast.whole import sha256_of

from ..forms.record import PairRecord
from ..forms.shards import END, tar_bytes
from ..ledger import Ledger, opened_at, to_disk

MANIFEST, SHARDS = "manifest.json", "shards.jsonl"


@dataclass(frozen=True)
class _Place:
    """Where a set stands: whole shards, the bytes of the file that lists them, records and bytes of the growing one."""

    shards: int = 0
    listed: int = 0
    records: int = 0
    bytes: int = 0
    complete: bool = False


class PairStore:
    """Takes records in the order of their inputs. Where shards end depends on the records alone, not on stops."""

    def __init__(self, out: Path, settings: Mapping[str, Any], each: int = 1000, resume: bool = False) -> None:
        """
        Args:
            each: records a shard; one more input's are added before it ends.

        Raises:
            BadInput: `out` is there and `resume` is not given, or it was made with other settings, or by others, or it
                cannot be written.
        """
        self.out, self._each = out, each
        self._ledger = Ledger(out / MANIFEST, out, {**settings, "records_per_shard": each}, resume)
        self._place = _Place(**self._ledger.place)
        try:
            out.mkdir(parents=True, exist_ok=True)
            if not self._ledger.place:
                self._note(self._place)  # a shard without a ledger would be nobody's
            self._file = self._open()
        except OSError as error:
            raise BadInput(f"{out} cannot be written: {error.strerror or error}") from error

    @property
    def inputs(self) -> int:
        """How many inputs are done."""
        return self._ledger.inputs

    @property
    def counts(self) -> dict[str, int]:
        """What became of inputs and samples."""
        return self._ledger.counts

    def append(self, records: Sequence[PairRecord], inputs: int, counts: Mapping[str, int]) -> None:
        """Adds the records of `inputs` more inputs, all or nothing.

        Raises:
            BadInput: they cannot be written, as on a full disk; what was there before is kept.
        """
        try:
            for record in records:
                self._file.write(tar_bytes(record))
            to_disk(self._file)
            grown = replace(self._place, records=self._place.records + len(records), bytes=self._file.tell())
            self._note(grown, inputs, counts)
            if self._place.records >= self._each:
                self._finish()
                self._file = self._open()
        except OSError as error:
            raise BadInput(
                f"{self.out} cannot be written: {error.strerror or error}; all before is kept, go on with --resume"
            ) from error

    def finish(self) -> None:
        """Ends the last shard, if it has records. Nothing can be added after it."""
        try:
            if self._place.records:
                self._finish()
            self._file.close()
            self._growing.unlink(missing_ok=True)
            self._note(replace(self._place, complete=True))
        except OSError as error:
            raise BadInput(f"{self.out} cannot be written: {error.strerror or error}; go on with --resume") from error

    def __enter__(self) -> PairStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def _name(self) -> str:
        return f"pairs-{self._place.shards:05d}.tar"

    @property
    def _growing(self) -> Path:
        return self.out / f".{self._name}.part"

    def _open(self) -> BinaryIO:
        """The growing shard, cut off where the ledger says it ends."""
        whole, growing, place = self.out / self._name, self._growing, self._place
        if whole.exists() and not growing.exists():
            whole.rename(growing)  # it was ended, and the ledger never told
        if (growing.stat().st_size if growing.exists() else 0) < place.bytes:
            raise BadInput(f"{growing} is shorter than {MANIFEST} says: it was changed by someone else")
        self._file = opened_at(growing, place.bytes)
        if place.records < self._each:
            return self._file
        self._finish()  # it was full, and stopped before it was ended
        return self._open()

    def _finish(self) -> None:
        """Ends the growing shard: it takes its name, and then the ledger tells of it."""
        self._file.write(END)
        to_disk(self._file)
        size = self._file.tell()
        self._file.close()
        shard = {
            "name": self._name,
            "records": self._place.records,
            "bytes": size,
            "sha256": sha256_of(self._growing),
        }
        self._growing.rename(self.out / self._name)
        with opened_at(self.out / SHARDS, self._place.listed) as lines:
            lines.write(json.dumps(shard).encode() + b"\n")
            to_disk(lines)
            listed = lines.tell()
        self._note(_Place(shards=self._place.shards + 1, listed=listed))

    def _note(self, place: _Place, inputs: int = 0, counts: Mapping[str, int] | None = None) -> None:
        self._ledger.save(inputs, counts, **vars(place))
        self._place = place


def whole_shards(out: Path) -> list[dict[str, Any]]:
    """Of every whole shard of a set its name, records, bytes and SHA-256.

    Raises:
        BadInput: there is no such set, or its manifest cannot be read.
    """
    try:
        count = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["shards"]
        lines = (out / SHARDS).read_text(encoding="utf-8").splitlines() if count else []
        return [json.loads(line) for line in lines[:count]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{out} is no set that `dataset pairs` made: {error!r}") from error
