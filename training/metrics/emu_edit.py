"""Emu Edit's test set (Sheynin et al. 2023) as it lies on the hub under facebook/emu_edit_test_set: parquet files.

A row: instruction, image, task (add, background, color, global, local, remove, style, text), split, idx,
input_caption, output_caption. There is no picture of the wanted result.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ip2p_fast.errors import BadInput, MissingExtra

from ..dataset.forms.record import key_of
from .cases import EditCase, distinct_cases, listing, read_picture

_TEXTS = ("instruction", "input_caption", "output_caption", "task")
_NEEDED = ("idx", "image", *_TEXTS)
_ROWS = 32
"""In memory at a time."""


def read_emu_edit(folder: Path, split: str = "test", limit: int | None = None) -> Iterator[EditCase]:
    """The rows of a split, in the order of the files' names; the group is the task, the id SPLIT-TASK-IDX.

    Args:
        folder: any *.parquet in it or below it is read.
        split: test or validation, the value of the column `split`. Without that column the files whose names begin with
            it, as the hub names them, are the split, and all files where no name does.
        limit: of cases.

    Raises:
        BadInput: no parquet, a column is absent (the message lists those there are), no row of the split, or a picture
            that is not in the file.
        MissingExtra: pyarrow is absent.
    """
    parquet = _parquet()
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise BadInput(f"{folder} has no *.parquet of the Emu Edit test set; there is {listing(folder)}")
    columns = {path: _columns(parquet, path) for path in files}
    if all("split" not in names for names in columns.values()):
        files = [path for path in files if path.name.startswith(split)] or files
    return itertools.islice(distinct_cases(_cases(parquet, files, split)), limit)


def write_emu_edit(cases: Sequence[EditCase], folder: Path, split: str = "test") -> None:
    """Writes cases as one parquet file under `folder`/data; idx counts them, pictures are PNG.

    Raises:
        MissingExtra: pyarrow is absent.
    """
    parquet = _parquet()
    import pyarrow

    rows = [
        {
            "instruction": case.instruction,
            "image": {"bytes": _png(case), "path": None},
            "task": case.group,
            "split": split,
            "idx": index,
            "input_caption": case.source_caption,
            "output_caption": case.target_caption,
        }
        for index, case in enumerate(cases)
    ]
    path = folder / "data" / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def _cases(parquet: Any, files: list[Path], split: str) -> Iterator[EditCase]:
    seen: set[str] = set()
    found = False
    for path in files:
        try:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS):
                    for row in batch.to_pylist():
                        seen.add(str(row.get("split", split)))
                        if row.get("split", split) == split:
                            found = True
                            yield _case(row, split, path)
        except OSError as error:
            raise BadInput(f"{path} cannot be read as parquet: {error}") from error
    if not found:
        raise BadInput(f"there is no row of the split {split!r}; there is {', '.join(sorted(seen)) or 'no row at all'}")


def _case(row: dict[str, Any], split: str, path: Path) -> EditCase:
    where = f"{path}, idx {row['idx']}"
    for name in _TEXTS:
        if not isinstance(row[name], str):
            raise BadInput(f"{where}: {name} is {row[name]!r}, not text")
    data = (row["image"] or {}).get("bytes") if isinstance(row["image"], dict) else None
    if not data:
        raise BadInput(f"{where}: the picture is not in the file")
    return EditCase(
        id=key_of(split, row["task"], row["idx"]),
        source=read_picture(data),
        instruction=row["instruction"],
        source_caption=row["input_caption"],
        target_caption=row["output_caption"],
        group=row["task"],
    )


def _columns(parquet: Any, path: Path) -> list[str]:
    import pyarrow

    try:
        names = list(parquet.read_schema(path).names)
    except (OSError, pyarrow.ArrowException) as error:
        raise BadInput(f"{path} cannot be read as parquet: {error}") from error
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise BadInput(f"{path} has no column {', '.join(missing)}; there is {', '.join(names)}")
    return names


def _png(case: EditCase) -> bytes:
    file = io.BytesIO()
    Image.fromarray(case.source).save(file, "PNG")
    return file.getvalue()


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("parquet", "train") from error
    return pyarrow.parquet
