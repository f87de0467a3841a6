"""Results files of models of the pocket world, and the tables of a document that are drawn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ip2p_fast import Editor
from ip2p_fast.benchmarks.results import Row, read_results, write_results
from ip2p_fast.benchmarks.table import between_markers, full_tables
from ip2p_fast.checkpoints import SHIPPED
from ip2p_fast.errors import BadInput

from .data import draw_pairs
from .evaluate import Report
from .figures import clip_figures, reader_figures, vae_figures
from .reader import load_reader
from .stages import HELD_OUT, load_clip, load_vae

# Bars: the edits' for a model trained on a CPU, the reader's for every attribute, the autoencoder's to ship at all.
_TARGETS = {"target_success": 0.80, "preservation": 0.80, "vae_psnr_db": 28.0, "reader.": 0.99}
STUDENT_MARGIN = 0.03
"""How far a student's shares may lie below its teacher's."""
_TAUGHT = ("target_success", "preservation")
_WHAT = {
    "target_success": "edits whose asked attribute reads its new value",
    "preservation": "edits that keep every other attribute",
    "both": "edits that do both",
    "psnr_db": "PSNR of an edit to its ground truth",
    "vae_psnr_db": "PSNR of a picture through the autoencoder",
    "clip_retrieval": "pictures whose own caption CLIP finds among 256",
    "reader.": "renders whose {} is read right",
    "reader_decoded.": "renders through the autoencoder whose {} is read right",
}


def record(path: Path, editor: Editor, report: Report, teacher: Path | None = None) -> None:
    """Writes a report, with figures of the components that are the model's own and no links to another's.

    Args:
        path: its name without the ending, hyphens read as dots, is what the ids of the rows begin with.
        teacher: a results file, of which the edits' shares are to come within `STUDENT_MARGIN`.

    Raises:
        BadInput: the teacher's file is faulty.
    """
    folder = Path(editor.model_path)
    figures = {name: getattr(report, name) for name in ("target_success", "preservation", "both", "psnr_db")}
    if not (folder / "clip").is_symlink() and (folder / "clip").is_dir():
        reader, vae = load_reader(folder / "reader"), load_vae(folder)
        held_out = draw_pairs("held-out", HELD_OUT, reader.pixels)
        figures |= vae_figures(vae, held_out) | clip_figures(*load_clip(folder), held_out)
        figures |= reader_figures(reader, vae, held_out)
    targets = dict(_TARGETS if teacher is None else _near(teacher))
    settings = {"edits": report.edits, "settings": dict(editor.backend.info.defaults), "by_kind": report.by_kind}
    rows = [
        _row(path.stem.replace("-", "."), name, value, targets, settings if name in vars(report) else {})
        for name, value in figures.items()
    ]
    again = f"ip2p-fast evaluate pocket --model {_named(folder)} --limit {report.edits} --record {path.as_posix()}"
    write_results(path, rows, rerun=again + (f" --teacher {teacher.as_posix()}" if teacher else ""))


def draw_table(document: Path, results: Path) -> None:
    """Redraws the table between the marker lines `NAME:begin` and `NAME:end` of a document, NAME being the file's.

    Raises:
        BadInput: the document lacks the markers, or the results file is faulty.
    """
    found, name = read_results(results), results.stem
    table = f"{full_tables({name: found})}\n\n{_kinds(found.rows)}"
    document.write_text(
        between_markers(document, table, f"<!-- {name}:begin -->", f"<!-- {name}:end -->"), encoding="utf-8"
    )


def _near(teacher: Path) -> dict[str, float]:
    values = {row.id.partition(".")[2]: row.value for row in read_results(teacher).rows}
    missing = [name for name in _TAUGHT if name not in values]
    if missing:
        raise BadInput(f"{teacher} has no {missing[0]}: make it with `ip2p-fast evaluate pocket --record`")
    return {name: round(values[name] - STUDENT_MARGIN, 4) for name in _TAUGHT}


def _named(folder: Path) -> str:
    """How a command names the model: by the shipped one's name, else by its folder."""
    return next((name for name, shipped in SHIPPED.items() if shipped == folder), folder.as_posix())


def _row(model: str, name: str, value: float, targets: dict[str, float], detail: dict[str, Any]) -> Row:
    def of(table: dict[str, Any]) -> Any:
        return next((entry for start, entry in table.items() if name.startswith(start)), None)

    what = str(of(_WHAT)).format(name.rpartition(".")[2])
    unit = "dB" if name.endswith("_db") else "share"
    return Row(f"{model}.{name}", value, unit, "higher", of(targets), {"what": what, **detail})


def _kinds(rows: tuple[Row, ...]) -> str:
    detail = next(row.detail for row in rows if row.id.endswith(".target_success"))
    lines = [
        "| kind of edit | edits | as asked | rest kept | both | PSNR, dB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind, found in detail["by_kind"].items():
        shares = " | ".join(f"{found[name]:.0%}" for name in ("target_success", "preservation", "both"))
        lines.append(f"| {kind} | {found['edits']} | {shares} | {found['psnr_db']:.1f} |")
    return "\n".join(lines)
