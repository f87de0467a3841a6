"""What the commands of figures share: their options, what they load, and what they write."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ip2p_fast.errors import BadInput

from ..dataset.options import number

if TYPE_CHECKING:
    from ip2p_fast import Editor
    from ip2p_fast.benchmarks.results import Row

    from ..pocket.reader import Reader
    from .cases import Cases
    from .curve import Curve
    from .scoring import CaseScorer

Model = Annotated[str, typer.Option(help="Edits by instruction: pocket, a folder, a hub id or a single file.")]
Base = Annotated[str, typer.Option(help="Text-to-image, for SDEdit: pocket-base, a folder, a hub id or a file.")]
Clip = Annotated[str, typer.Option(help="Folder or hub id of a CLIP, or pocket.")]
Data = Annotated[
    str | None, typer.Option(help="Captioned pairs, in any form of `dataset`.", show_default="the pocket world")
]
ReaderFolder = Annotated[
    Path | None, typer.Option(help="Judges the pocket world: its folder.", show_default="the pocket model's")
]
Scale = Annotated[float | None, typer.Option(show_default="the model's")]
Steps = Annotated[int | None, typer.Option(show_default="the model's", min=1)]
Scales = Annotated[str | None, typer.Option(help="Of s_I, with commas between.", show_default="1.0 to 2.2")]
Guidance = Annotated[float | None, typer.Option(help="SDEdit's scale.", show_default="the base's, else 7.5")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="The results file.", show_default="runs/figures/NAME.json")
]
Picture = Annotated[
    Path | None, typer.Option(help="The figure: .png, .pdf or .svg.", show_default="beside the results, .png")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Results = Annotated[
    Path | None, typer.Option(help="Folder of results files.", show_default="benchmarks/results/figures")
]


@dataclass(frozen=True)
class Files:
    """What a command writes. name: of the figure."""

    name: str
    results: Path
    picture: Path


@dataclass(frozen=True)
class Work:
    """What is edited, and what scores the edits."""

    cases: Cases
    scorer: CaseScorer


def output_files(name: str, out: Path | None, picture: Path | None) -> Files:
    """Where a command writes. Raises BadInput for endings that cannot be, before work starts."""
    from .plots import require_ending

    results = out or Path("runs/figures") / f"{name}.json"
    if results.suffix != ".json":
        raise BadInput(f"--out is {results}: a results file ends in .json; the figure is --picture")
    require_ending(picture or results.with_suffix(".png"))
    return Files(name, results, picture or results.with_suffix(".png"))


def prepared(
    clip: str,
    data: str | None,
    reader: Path | None,
    limit: int,
    device: str,
    read: Callable[..., Cases] | None = None,
) -> Work:
    """Cases of the pocket world, with its reader, or of a data set. read: `read_cases`, or one of its form."""
    from ..dataset.pairs.clip_scores import ClipScorer
    from .cases import read_cases
    from .scoring import CaseScorer

    judge = loaded_reader(reader, device) if data is None else None
    cases = (read or read_cases)(data, limit, *(() if judge is None else (judge.pixels,)))
    return Work(cases, CaseScorer(ClipScorer(clip, place_of(device)), cases, judge))


def loaded_reader(reader: Path | None, device: str) -> Reader:
    """The pocket model's where none is given."""
    from ip2p_fast.checkpoints import POCKET

    from ..pocket.reader import load_reader

    return load_reader(reader or POCKET / "reader", place_of(device))


def loaded_editor(model: str, device: str) -> Editor:
    """With the fastest backend that is there; `auto` is the editor's own choice of device."""
    from ip2p_fast import Editor

    return Editor.from_pretrained(model, device=device)


def place_of(device: str) -> str:
    """cpu or cuda. Raises BadInput for what is not there."""
    from ..cli import _device

    return _device(device)


def numbers(option: str, text: str | None, default: tuple[float, ...]) -> tuple[float, ...]:
    """ "1.0,1.2" Raises BadInput for what is no number, or there twice."""
    if text is None:
        return default
    found = tuple(number(option, part) for part in text.split(","))
    if len(set(found)) < len(found):
        raise BadInput(f"{option} is {text!r}: every number may be there once")
    return found


def named_model(text: str) -> tuple[str, str]:
    """ "NAME=FOLDER" """
    name, separator, folder = text.partition("=")
    if not (name and separator and folder):
        raise BadInput(f"{text!r} names no model: NAME=FOLDER is needed, as full=runs/full")
    return name, folder


@contextmanager
def counted(total: int, what: str = "edits") -> Iterator[Callable[[int], None]]:
    """A progress bar that is told how many are done."""
    from ..cli import progress

    with progress() as watch:
        yield lambda done: watch(what, done / total, f"{done} of {total}")


def write_curves(context: typer.Context, files: Files, found: Sequence[Curve], as_json: bool) -> None:
    """`finish` for curves alone."""
    from .curve import curve_rows

    finish(context, files, curve_rows(files.name, found), as_json)


def finish(context: typer.Context, files: Files, rows: Sequence[Row], as_json: bool) -> None:
    """Writes the results file, draws the figure from it, and says what was measured."""
    from ip2p_fast.benchmarks.results import write_results

    from .document import draw_figure

    write_results(files.results, rows, _rerun(context))
    draw_figure(files.name, files.results, files.picture)
    if as_json:
        values = {row.id: row.value for row in rows}
        print(json.dumps({"results": str(files.results), "picture": str(files.picture), "values": values}))
        return
    for row in rows:
        print(f"{row.detail['what']:70} {row.value:.4g}")
    print(files.results, files.picture, sep="\n")


def _rerun(context: typer.Context) -> str:
    """The command with the options that were given."""
    words = ["ip2p-fast", "evaluate", str(context.info_name)]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        source = context.get_parameter_source(str(parameter.name))
        if source is None or source.name != "COMMANDLINE" or parameter.name == "as_json":
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        if parameter.param_type_name == "argument":
            words += map(str, values)
        else:
            words += [part for one in values for part in (max(parameter.opts, key=len), str(one))]
    return shlex.join(words)
