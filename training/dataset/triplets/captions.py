"""Captions from the files people have them in: .txt, .jsonl, .csv, .parquet, or a data set of the Hugging Face hub."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ip2p_fast.errors import BadInput, MissingExtra


@dataclass(frozen=True)
class Caption:
    """One input. `line` numbers it from 1 in its source; `fault` is what is wrong with it when it has no text."""

    line: int
    text: str
    url: str | None = None
    fault: str | None = None


def read_captions(source: str, column: str = "caption", url_column: str = "url") -> Iterator[Caption]:
    """The captions of a source, in order; a line that cannot be read is given with its fault, not left out.

    Args:
        source: a path by its ending (.txt: a caption a line), or hub-data-set[:split].
        column: where the caption is in files of several columns; its like `input` and `text` are looked for as well.
        url_column: where the picture's address is, if anywhere.

    Raises:
        BadInput: there is no such source, or it has no such column.
        MissingExtra: .parquet or a hub data set without the package that reads it.
    """
    path = Path(source)
    ending = path.suffix.lower()
    if ending not in _READERS:
        if path.exists():
            raise BadInput(f"{source}: captions are read from {', '.join(_READERS)} or a hub data set")
        return _chosen(_hub_rows(source), source, column, url_column)
    if not path.is_file():
        raise BadInput(f"{source} is not there")
    if ending == ".txt":
        return _text_lines(path)
    return _chosen(_READERS[ending](path), source, column, url_column)


def _text_lines(path: Path) -> Iterator[Caption]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            yield _caption(number, line)


def _chosen(rows: Iterable[dict[str, Any] | str], source: str, column: str, url_column: str) -> Iterator[Caption]:
    """Rows as captions; a row that is a string is the fault of its line."""
    for number, row in enumerate(rows, 1):
        if isinstance(row, str):
            yield Caption(number, "", fault=row)
            continue
        found = next((name for name in (column, "caption", "input", "text") if name in row), None)
        if found is None:
            if number == 1:
                raise BadInput(f"{source} has no column {column!r}; it has {', '.join(map(str, row))}")
            yield Caption(number, "", fault=f"no {column!r}")
            continue
        url = row.get(url_column)
        yield _caption(number, row[found], None if url is None else str(url))


def _caption(number: int, text: Any, url: str | None = None) -> Caption:
    if not isinstance(text, str):
        return Caption(number, "", url, fault=f"the caption is {type(text).__name__}, not text")
    return Caption(number, " ".join(text.split()), url)


def _jsonl_rows(path: Path) -> Iterator[dict[str, Any] | str]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield f"not JSON: {error.msg}"
                continue
            yield row if isinstance(row, dict) else "not a JSON object"


def _csv_rows(path: Path) -> Iterator[dict[str, Any] | str]:
    with path.open(encoding="utf-8", errors="replace", newline="") as lines:
        yield from csv.DictReader(lines)


def _parquet_rows(path: Path) -> Iterator[dict[str, Any] | str]:
    parquet = _package("pyarrow.parquet", "reading .parquet")
    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _hub_rows(source: str) -> Iterator[dict[str, Any] | str]:
    datasets = _package("datasets", "reading a hub data set")
    name, _, split = source.partition(":")
    try:
        yield from datasets.load_dataset(name, split=split or "train", streaming=True)
    except Exception as error:
        raise BadInput(f"{source} is neither a file here nor a data set that can be loaded: {error}") from error


def _package(name: str, purpose: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra(purpose, "train") from error


_READERS: dict[str, Any] = {".txt": None, ".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
