"""Parquet in Hugging Face's form: timbrooks' columns and ours, written so that `datasets` knows what they hold."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ip2p_fast.errors import BadInput, MissingExtra
from ip2p_fast.whole import whole

from .columns import FEATURES, naming_of, record_of_row, row_of_record
from .record import SIMILARITIES, PairRecord, distinct

_ROWS = 64
"""In memory at a time, and of a row group: 64 pairs of 512x512 at quality 100 are about 30 MB."""


def read_parquet(path: Path) -> Iterator[PairRecord]:
    """The rows of a file with the columns of either naming. A row without `key` gets the file's name and its number.

    Raises:
        BadInput: no parquet, other columns, a damaged file, or a picture that is not in the file.
        MissingExtra: pyarrow is absent.
    """
    arrow = _pyarrow()
    number = 0
    try:
        with arrow.parquet.ParquetFile(path) as file:
            naming = naming_of(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(_ROWS):
                for row in batch.to_pylist():
                    yield record_of_row(row, naming, f"{path.stem}-{number:07d}", str(path))
                    number += 1
    except (OSError, arrow.ArrowException) as error:
        raise BadInput(f"{path} cannot be read as parquet, at row {number}: {error}") from error


def write_parquet(records: Iterable[PairRecord], path: Path) -> int:
    """Writes a file, whole or not at all, and returns the number of records. Pictures are kept as they are.

    Raises:
        BadInput: the file is there already, a key is repeated, there is no record, or a seed that 64 bits do not hold.
        MissingExtra: pyarrow is absent.
    """
    arrow = _pyarrow()
    schema = _schema(arrow)
    remaining = distinct(records)
    count = 0
    with whole(path) as partial, arrow.parquet.ParquetWriter(partial, schema) as file:
        while group := list(itertools.islice(remaining, _ROWS)):
            try:
                table = arrow.Table.from_pylist([row_of_record(record) for record in group], schema)
            except (arrow.ArrowException, OverflowError) as error:
                raise BadInput(f"a record from {group[0].key} to {group[-1].key} does not fit: {error}") from error
            file.write_table(table, row_group_size=_ROWS)
            count += len(group)
        if not count:
            raise BadInput(f"there are no records to write to {path}")
    return count


def _schema(arrow: Any) -> Any:
    """FEATURES as Arrow's types, and in the metadata as `datasets` writes them itself."""
    types = {"string": arrow.string(), "float64": arrow.float64(), "uint64": arrow.uint64()}
    columns = []
    for name, feature in FEATURES.items():
        if name == "similarities":
            kind = arrow.struct([(part, arrow.float64()) for part in SIMILARITIES])
        elif feature["_type"] == "Image":
            kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        else:
            kind = types[feature["dtype"]]
        columns.append((name, kind))
    return arrow.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})})


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("parquet", "train") from error
    return pyarrow
