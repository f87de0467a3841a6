"""Data sets of edited pairs in any form: shards, the original's folders, parquet, the hub."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ip2p_fast.errors import BadInput, MissingExtra

from .columns import image_columns, naming_of, record_of_row
from .folder_form import is_folder_form, read_folder, write_folder
from .parquet_form import read_parquet, write_parquet
from .record import PairRecord
from .shards import read_shard, write_shard, write_shards

FORMATS = ("webdataset", "folder", "parquet")

_FORMS = "a .tar shard, a .parquet file, a folder of either, a folder of the original's form, or OWNER/NAME[:SPLIT]"


def read_pairs(source: str | Path) -> Iterator[PairRecord]:
    """The records of a data set, in its order, few in memory at a time.

    Args:
        source: a shard (.tar), a .parquet file, a folder of either, a folder of the original's form
            (`folder_form`), or a data set of the hub, `owner/name[:split]`.

    Raises:
        BadInput: at once, there is no such source or its form is unknown; while reading, a file is damaged.
        MissingExtra: parquet or the hub without the package that reads it.
    """
    path = Path(source)
    if path.is_file():
        return _reader(path.suffix.lower(), str(source))(path)
    if path.is_dir():
        return itertools.chain.from_iterable(map(read_pairs, files)) if (files := _files(path)) else read_folder(path)
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(:[\w.-]+)?", str(source)) and path.suffix.lower() not in _READERS:
        return _read_hub(str(source))
    raise BadInput(f"{source} is not there; looked for {_FORMS}")


def pieces_of(source: str | Path) -> list[str]:
    """What a source can be read in parts as: the files of a folder of shards or of parquet, else the source itself.

    Raises:
        BadInput: a folder that holds no pairs, or several forms at once.
    """
    path = Path(source)
    files = _files(path) if path.is_dir() else []
    return [str(file) for file in files] or [str(source)]


def writer_for(out: Path, form: str, each: int | None = None) -> Callable[[Iterable[PairRecord], Path], int]:
    """Who writes a data set of one of FORMATS to `out`, whole or not at all, and returns the number of records.

    Args:
        out: the file or folder to make. `webdataset` makes a shard where the name ends in .tar, else a folder of them.
        each: records of a shard of such a folder; 1000 when None.

    Raises:
        BadInput: at once, the output is there already or its name does not suit the form; of the writer, a key is
            repeated, or there are no records.
    """
    if form not in FORMATS:
        raise BadInput(f"there is no format {form!r}: choose one of {', '.join(FORMATS)}")
    ending = out.suffix.lower()
    if (ending == ".parquet") != (form == "parquet") or (ending == ".tar" and form != "webdataset"):
        raise BadInput(
            f"{out} does not suit {form}: parquet makes a file .parquet, webdataset a file .tar or a folder of them, "
            "folder a folder"
        )
    if each is not None and (form != "webdataset" or ending == ".tar"):
        raise BadInput("the records of a shard can be chosen for a folder of shards alone")
    if each is not None and each < 1:
        raise BadInput(f"{each} records a shard: it must be at least 1")
    if out.exists():
        raise BadInput(f"{out} is there already: remove it, or choose another output")
    if form == "parquet":
        return write_parquet
    if form == "folder":
        return write_folder
    return write_shard if ending == ".tar" else lambda records, folder: write_shards(records, folder, each or 1000)


_READERS: dict[str, Callable[[Path], Iterator[PairRecord]]] = {".tar": read_shard, ".parquet": read_parquet}


def _reader(ending: str, source: str) -> Callable[[Path], Iterator[PairRecord]]:
    if ending not in _READERS:
        raise BadInput(f"{source} is in no form we read; looked for {_FORMS}")
    return _READERS[ending]


def _files(folder: Path) -> list[Path]:
    """The files of a folder of shards or of parquet; none for the original's form."""
    # a clone of a hub data set has its files in data/
    found = {
        ending: sorted(file for place in (folder, folder / "data") for file in place.glob(f"[!.]*{ending}"))
        for ending in _READERS
    }
    forms = [ending for ending, files in found.items() if files] + (["seeds.json"] if is_folder_form(folder) else [])
    if len(forms) > 1:
        raise BadInput(f"{folder} holds several forms at once ({', '.join(forms)}): name the files of one")
    if not forms:
        raise BadInput(
            f"{folder} holds no pairs; looked for *.tar and *.parquet in it and in its data/, and for seeds.json and "
            "*/prompt.json"
        )
    return found.get(forms[0], [])


def _read_hub(source: str) -> Iterator[PairRecord]:
    """Streams a data set of the hub; it is asked for at once, so that what is wrong with it is said before any work."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("reading a data set of the hub", "train") from error
    name, _, split = source.partition(":")
    split = split or "train"
    try:
        rows = datasets.load_dataset(name, split=split, streaming=True)
        columns = rows.column_names or list(next(iter(rows)))
    except Exception as error:  # network, names, permissions: whatever it is, its text is what helps
        raise BadInput(
            f"{source} is neither here nor a data set that can be loaded ({error}); looked for {_FORMS}"
        ) from error
    naming = naming_of(columns, source)
    for column in image_columns(naming):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    return (record_of_row(row, naming, f"{split}-{number:07d}", source) for number, row in enumerate(rows))
