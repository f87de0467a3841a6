"""A folder of shards that survives kill -9: every shard whole, no record lost or twice, and it knows where it stopped.

OUT/pairs-00000.tar, ... are whole shards (`shards`). The one that grows has its name behind a dot and with .part.
OUT/shards.jsonl has a line for each whole one: name, records, bytes, SHA-256. OUT/manifest.json is the ledger: what the
set is made with, counts, and how much of all this holds. It stays small however large the set grows.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ip2p_fast.errors import BadInput

from .ledger import Ledger
from .record import PairRecord
from .shards import END, tar_bytes

MANIFEST, SHARDS = "manifest.json", "shards.jsonl"


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
        self._file: BinaryIO | None = None
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._open()
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
        assert self._file is not None
        try:
            for record in records:
                self._file.write(tar_bytes(record))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._records += len(records)
            self._save(inputs, counts)
            if self._records >= self._each:
                self._finish()
                self._open()
        except OSError as error:
            raise BadInput(
                f"{self.out} cannot be written: {error.strerror or error}; all before is kept, go on with --resume"
            ) from error

    def finish(self) -> None:
        """Ends the last shard, if it has records. Nothing can be added after it."""
        try:
            if self._records:
                self._finish()
            self.__exit__(None, None, None)
            self._growing.unlink(missing_ok=True)
            self._ledger.save(shards=self._shards, records=0, bytes=0, complete=True)
        except OSError as error:
            raise BadInput(f"{self.out} cannot be written: {error.strerror or error}; go on with --resume") from error

    def __enter__(self) -> PairStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _name(self) -> str:
        return f"pairs-{self._shards:05d}.tar"

    @property
    def _shards(self) -> int:
        """How many are whole."""
        return int(self._ledger.place.get("shards", 0))

    @property
    def _growing(self) -> Path:
        return self.out / f".{self._name}.part"

    def _open(self) -> None:
        """Opens the growing shard where the ledger says it ends."""
        self._records, kept = self._ledger.place.get("records", 0), self._ledger.place.get("bytes", 0)
        whole = self.out / self._name
        if whole.exists() and not self._growing.exists():
            whole.rename(self._growing)  # it was ended, and the ledger never told
        if (self._growing.stat().st_size if self._growing.exists() else 0) < kept:
            raise BadInput(f"{self._growing} is shorter than {MANIFEST} says: it was changed by someone else")
        if self._ledger.place.get("complete") is None:
            self._ledger.save(shards=self._shards, records=self._records, bytes=kept)
        self._file = self._growing.open("r+b" if self._growing.exists() else "w+b")
        self._file.truncate(kept)
        self._file.seek(kept)
        if self._records >= self._each:  # it was full, and stopped before it was ended
            self._finish()
            self._open()

    def _save(self, inputs: int, counts: Mapping[str, int]) -> None:
        assert self._file is not None
        self._ledger.save(inputs, counts, shards=self._shards, records=self._records, bytes=self._file.tell())

    def _finish(self) -> None:
        """Ends the growing shard: it takes its name, and then the ledger tells of it."""
        assert self._file is not None
        self._file.write(END)
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        digest = _sha256(self._growing)
        name, growing = self._name, self._growing
        growing.rename(self.out / name)
        shard = {"name": name, "records": self._records, "bytes": size, "sha256": digest}
        _append(self.out / SHARDS, shard, self._shards)
        self._ledger.save(shards=self._shards + 1, records=0, bytes=0)


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


def _append(path: Path, line: Mapping[str, Any], after: int) -> None:
    """Puts a line behind the first `after` ones; what a process that died has left behind them goes."""
    with path.open("a+b") as file:
        file.seek(0)
        for _ in range(after):
            file.readline()
        file.truncate(file.tell())
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
