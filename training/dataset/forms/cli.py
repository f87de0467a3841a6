"""`ip2p-fast dataset convert` and `dataset inspect`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from ip2p_fast.errors import BadInput

from ...cli import progress
from .record import SIMILARITIES, PairRecord

_SOURCE = typer.Argument(help="A .tar or .parquet, a folder of either, the original's folder, or OWNER/NAME[:SPLIT].")
_JSON = typer.Option("--json", help="Print one JSON object and nothing else.")
_SHOWN_EVERY = 100


def convert(
    source: Annotated[str, _SOURCE],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file or folder to make.")],
    form: Annotated[str, typer.Option("--format", help="webdataset, folder (the original's) or parquet.")],
    per_shard: Annotated[
        int | None, typer.Option(help="Records of a shard, where OUT is a folder of shards.", show_default="1000")
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Write a data set in another form. Pictures are copied as they are; `inspect` says what is wrong with them."""
    from .formats import read_pairs, writer_for

    write = writer_for(out, form, per_shard)
    records = read_pairs(source)
    with progress() as watch:

        def counted(records: Iterable[PairRecord]) -> Iterator[PairRecord]:
            for number, record in enumerate(records, 1):
                yield record
                if number % _SHOWN_EVERY == 0:
                    watch("convert", 0.0, f"{number} records")

        count = write(counted(records), out)
    print(json.dumps({"records": count}) if as_json else f"{out}: {count} records")


def inspect(
    source: Annotated[str, _SOURCE],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for sheet.png and histograms.png.")],
    limit: Annotated[int | None, typer.Option(help="Records to look at.", show_default="all", min=1)] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(help="Draw and count them: paper, or text-image-0,text-image-1,direction,image as numbers."),
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Validate every record, and draw the first 24 and histograms of what was measured.

    Exit status 2 where a record is faulty or the data set cannot be read to its end; the pictures are drawn and the
    summary is printed all the same.
    """
    from .formats import read_pairs
    from .inspection import HISTOGRAMS, SHEET, inspect_pairs

    drawn = _thresholds(thresholds)
    records = read_pairs(source)
    with progress() as watch:

        def advance(count: int) -> None:
            if count % _SHOWN_EVERY == 0:
                watch("inspect", count / limit if limit else 0.0, f"{count} records")

        found = inspect_pairs(records, out, drawn, limit, advance)
    if as_json:
        print(json.dumps(found.as_json()))
    else:
        print(f"{source}: {found.records} records, {found.captions} captions, {found.instructions} instructions")
        for name, mean in found.means.items():
            print(f"  mean {name:20} {mean:.4g}")
        if found.passing is not None:
            print(f"  {'pass the thresholds':25} {found.passing}")
        for name, count in found.faults.items():
            print(f"  faulty {name:18} {count}")
        for line in found.named:
            print(f"    {line}")
        print(f"  {out / SHEET}, {out / HISTOGRAMS}")
    if found.complaint is not None:
        raise BadInput(found.complaint)


def _thresholds(text: str | None) -> dict[str, float]:
    from .inspection import PAPER_THRESHOLDS

    if text is None:
        return {}
    if text == "paper":
        return PAPER_THRESHOLDS
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != len(SIMILARITIES) or not all(-1 <= value <= 1 for value in values):
        raise BadInput(f"--thresholds is {text!r}: give `paper`, or four cosines from -1 to 1 such as 0.2,0.2,0.2,0.7")
    return dict(zip(SIMILARITIES, values, strict=True))
