"""Everything redrawn from results files, with no model run: the pictures, and the tables of docs/results.md."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ip2p_fast.benchmarks.results import Results, Row, read_results
from ip2p_fast.benchmarks.table import RESULTS, read_document, replace_between
from ip2p_fast.errors import BadInput

from ..pocket.scene import ATTRIBUTES
from ..pocket.split import KINDS
from .claims import check_claims
from .curve import curve_table, read_curves
from .plots import draw_bias, draw_curves, draw_limits, draw_pictures, save_figure
from .tiles import unpack_tiles

FIGURES_OF_PAPER = RESULTS / "figures"
"""The results files of the figures. A folder of its own: docs/benchmarks.md lists those beside it row by row."""


@dataclass(frozen=True)
class PaperFigure:
    """number: of the figure in the paper. draw: rows, a name for errors -> a matplotlib figure. table: -> Markdown."""

    number: int
    draw: Callable[[Sequence[Row], str], Any]
    table: Callable[[Sequence[Row], str], str]


def draw_figure(name: str, results: Path, picture: Path) -> None:
    """Draws one of FIGURES from its results file.

    Raises:
        BadInput: the file is faulty or of another figure, or the picture's ending is none that can be drawn.
    """
    rows = read_results(results).rows
    try:
        figure = FIGURES[name].draw(rows, str(results))
    except (KeyError, StopIteration, IndexError) as error:
        raise BadInput(f"{results} holds no results of `ip2p-fast evaluate {name}`: {error!r}") from error
    save_figure(figure, picture)


def redraw(results: Path, document: Path, pictures: Path, ending: str = ".png") -> tuple[list[Path], list[str]]:
    """Draws every figure whose results are there, and rewrites the document's parts between markers.

    Returns:
        The files written, and the names of FIGURES whose results are not there: their parts of the document say so.

    Raises:
        BadInput: a faulty results file, one of a quick trial, or a document without the markers.
    """
    text = redrawn_text(results, document, pictures)
    found = [name for name in FIGURES if _file(results, name).is_file()]
    for name in found:
        draw_figure(name, _file(results, name), pictures / f"{name}{ending}")
    document.write_text(text, encoding="utf-8")
    written = [pictures / f"{name}{ending}" for name in found]
    return [*written, document], [name for name in FIGURES if name not in found]


def redrawn_text(results: Path, document: Path, pictures: Path) -> str:
    """The document with its parts between markers as the results files have them. Raises BadInput as `redraw`."""
    parts = {name: _part(name, _file(results, name), document, pictures) for name in FIGURES}
    parts["claims"] = claims_table(results)
    text = read_document(document)
    for name, part in parts.items():
        text = replace_between(text, part, f"<!-- {name}:begin -->", f"<!-- {name}:end -->", str(document))
    return text


def claims_table(results: Path) -> str:
    """A line for each claim."""
    lines = ["| claim | holds | effect | 95% interval | edits |", "| --- | --- | --- | --- | --- |"]
    for claim in check_claims(results):
        if claim.holds is None or claim.interval is None:
            lines.append(f"| {claim.claim} | not measured | | | |")
            continue
        holds = "yes" if claim.holds else "**no**"
        low, high = claim.interval
        lines.append(f"| {claim.claim} | {holds} | {claim.effect:+.4f} | {low:+.4f} to {high:+.4f} | {claim.edits} |")
    return "\n".join(lines)


def _part(name: str, path: Path, document: Path, pictures: Path) -> str:
    if not path.is_file():
        return f"Not measured yet: `ip2p-fast evaluate {name}`."
    found = read_results(path)
    if found.quick:
        raise BadInput(f"{path}: the figures of a quick trial mean nothing; remove it")
    figure = FIGURES[name]
    shown = Path(os.path.relpath(pictures / f"{name}.png", document.parent)).as_posix()
    return f"![Figure {figure.number}]({shown})\n\n{figure.table(found.rows, str(path))}\n\n{_measured(found)}"


def _file(results: Path, name: str) -> Path:
    return results / f"{name}.json"


def _draw_curves(rows: Sequence[Row], source: str) -> Any:
    return draw_curves(_curves(rows, source))


def _curve_table(rows: Sequence[Row], source: str) -> str:
    return curve_table(_curves(rows, source))


def _curves(rows: Sequence[Row], source: str) -> list[Any]:
    curves = read_curves(rows, source)
    if not curves:
        raise BadInput(f"{source} holds no curves")
    return curves


def _draw_tiles(rows: Sequence[Row], source: str) -> Any:
    shown = next(row for row in rows if "tiles" in row.detail).detail
    return draw_pictures(unpack_tiles(shown["tiles"], source), shown["across"], shown["down"])


def _limits_table(rows: Sequence[Row], source: str) -> str:
    shares = {(row.detail["kind"], row.detail["aspect"]): row for row in rows}
    lines = ["| kind of edit | edits | as asked | rest kept | both |", "| --- | --- | --- | --- | --- |"]
    for kind in KINDS:
        cells = [_share(shares[kind, aspect]) for aspect in ("success", "kept", "both")]
        lines.append(f"| {kind} | {shares[kind, 'both'].detail['edits']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _bias_table(rows: Sequence[Row], source: str) -> str:
    drifts = {row.detail["drift_of"]: row for row in rows if "drift_of" in row.detail}
    lines = [
        "| attribute | changes unasked | by the autoencoder alone | value that gains most | gain |",
        "| --- | --- | --- | --- | --- |",
    ]
    for attribute in ATTRIBUTES:
        row = drifts[attribute]
        low, high = row.detail["interval"]
        gain = f"{row.value:+.1%} [{low:+.1%}, {high:+.1%}]"
        shares = f"{row.detail['changed']:.1%} | {row.detail['autoencoder']:.1%}"
        value, said = (row.detail["to"], gain) if row.value > 0 else ("none", "")
        lines.append(f"| {attribute} | {shares} | {value} | {said} |")
    return "\n".join(lines)


def _share(row: Row) -> str:
    low, high = row.detail["interval"]
    return f"{row.value:.0%} [{low:.0%}, {high:.0%}]"


def _measured(found: Results) -> str:
    machine = found.machine.get("cpu")
    return (
        f"Measured {found.created[:10]} at {found.commit or 'an unknown commit'} on {machine}; again: `{found.rerun}`"
    )


FIGURES: dict[str, PaperFigure] = {
    "grid": PaperFigure(4, _draw_tiles, _curve_table),
    "curves": PaperFigure(8, _draw_curves, _curve_table),
    "compare": PaperFigure(9, _draw_tiles, _curve_table),
    "ablations": PaperFigure(10, _draw_curves, _curve_table),
    "limits": PaperFigure(13, lambda rows, source: draw_limits(rows), _limits_table),
    "bias": PaperFigure(14, lambda rows, source: draw_bias(rows), _bias_table),
}
"""By name: of the command, the results file and the picture."""
