"""The columns that Hugging Face data sets of edited pictures have, in either naming, and ours beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ip2p_fast.errors import BadInput

from .record import SIMILARITIES, PairRecord, described, key_of, record_from

# Columns, and the fields they hold: of timbrooks/instructpix2pix-clip-filtered, and of fusing's 1000 samples.
NAMINGS: tuple[dict[str, str], ...] = (
    {
        "original_prompt": "caption",
        "original_image": "input_image",
        "edit_prompt": "instruction",
        "edited_prompt": "edited_caption",
        "edited_image": "edited_image",
    },
    {"input_image": "input_image", "edit_prompt": "instruction", "edited_image": "edited_image"},
)

# The type of each column that is written; `datasets` reads it in a file's metadata.
_TEXT, _REAL = {"dtype": "string", "_type": "Value"}, {"dtype": "float64", "_type": "Value"}
FEATURES: dict[str, Any] = {
    "original_prompt": _TEXT,
    "original_image": {"_type": "Image"},
    "edit_prompt": _TEXT,
    "edited_prompt": _TEXT,
    "edited_image": {"_type": "Image"},
    "key": _TEXT,
    "seed": {"dtype": "uint64", "_type": "Value"},
    "p": _REAL,
    "cfg": _REAL,
    "similarities": dict.fromkeys(SIMILARITIES, _REAL),
}


def naming_of(columns: Sequence[str], source: str) -> dict[str, str]:
    """Which naming some columns follow; of the captions' columns one or both may be absent.

    Raises:
        BadInput: neither.
    """
    for naming in NAMINGS:
        if all(column in columns for column, field in naming.items() if "caption" not in field):
            return naming
    wanted = ", or ".join(" ".join(naming) for naming in NAMINGS)
    raise BadInput(f"{source} has the columns {' '.join(columns)}; looked for {wanted}")


def image_columns(naming: Mapping[str, str]) -> list[str]:
    """The columns of pictures."""
    return [column for column, field in naming.items() if field.endswith("_image")]


def record_of_row(row: Mapping[str, Any], naming: Mapping[str, str], fallback: str, source: str) -> PairRecord:
    """A row as a record. Cells of pictures are {bytes, path} or bytes; an empty cell becomes a fault of the record.

    Args:
        fallback: the key of a row without one.

    Raises:
        BadInput: a value of another type than its column's, or a picture that is only a path or an address.
    """
    where = f"{source}, {fallback}"
    fields = {field: row.get(column) for column, field in naming.items()}
    before, after = (_picture(fields.pop(name), name, where) for name in ("input_image", "edited_image"))
    # beside theirs, ours
    known = {**{name: row.get(name) for name in ("seed", "p", "cfg", "similarities")}, **fields}
    return record_from(key_of(row.get("key") or fallback), before, after, known, where)


def row_of_record(record: PairRecord) -> dict[str, Any]:
    """A record as a row of FEATURES."""
    fields = {**described(record), "input_image": record.input_image, "edited_image": record.edited_image}
    row: dict[str, Any] = {column: fields.pop(field) for column, field in NAMINGS[0].items()}
    for column in image_columns(NAMINGS[0]):
        row[column] = {"bytes": row[column], "path": None}
    return {**row, "key": record.key, **fields}


def _picture(cell: Any, name: str, where: str) -> bytes:
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if isinstance(data, bytes):
        return data
    if isinstance(cell, Mapping) and cell.get("path"):
        data = cell["path"]
    if data is None:
        return b""
    raise BadInput(
        f"{where}: the {name.replace('_', ' ')} is {data!r:.80}, not the bytes of a picture: embed the files"
    )
