"""The pocket model's results file, and the table of docs/pocket.md that is drawn from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ip2p_fast import Editor
from ip2p_fast.benchmarks.results import Row, read_results, write_results
from ip2p_fast.benchmarks.table import between_markers, full_tables

from .data import draw_pairs
from .evaluate import Report
from .figures import clip_figures, reader_figures, vae_figures
from .reader import load_reader
from .stages import HELD_OUT, load_clip, load_vae

BEGIN, END = "<!-- pocket:begin -->", "<!-- pocket:end -->"

# Bars: the edits' for a model trained on a CPU, the reader's for every attribute, the autoencoder's to ship at all.
_TARGETS = {"target_success": 0.80, "preservation": 0.80, "vae_psnr_db": 28.0, "reader.": 0.99}
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


def record(path: Path, editor: Editor, report: Report) -> None:
    """Measures the components of the editor's model on held-out pairs and writes them with the report."""
    folder = Path(editor.model_path)
    reader, vae = load_reader(folder / "reader"), load_vae(folder)
    held_out = draw_pairs("held-out", HELD_OUT, reader.pixels)
    figures = {
        "target_success": report.target_success,
        "preservation": report.preservation,
        "both": report.both,
        "psnr_db": report.psnr_db,
        **vae_figures(vae, held_out),
        **clip_figures(*load_clip(folder), held_out),
        **reader_figures(reader, vae, held_out),
    }
    settings = {"edits": report.edits, "settings": dict(editor.backend.info.defaults), "by_kind": report.by_kind}
    rows = [_row(name, value, settings if name in vars(report) else {}) for name, value in figures.items()]
    write_results(path, rows, rerun=f"ip2p-fast evaluate pocket --limit {report.edits} --record {path.as_posix()}")


def draw_table(document: Path, results: Path) -> None:
    """Redraws the table between the marker lines of a document.

    Raises:
        BadInput: the document lacks the markers, or the results file is faulty.
    """
    found = read_results(results)
    table = f"{full_tables({results.stem: found})}\n\n{_kinds(found.rows)}"
    document.write_text(between_markers(document, table, BEGIN, END), encoding="utf-8")


def _row(name: str, value: float, detail: dict[str, Any]) -> Row:
    def of(table: dict[str, Any]) -> Any:
        return next((entry for start, entry in table.items() if name.startswith(start)), None)

    what = str(of(_WHAT)).format(name.rpartition(".")[2])
    unit = "dB" if name.endswith("_db") else "share"
    return Row(f"pocket.{name}", value, unit, "higher", of(_TARGETS), {"what": what, **detail})


def _kinds(rows: tuple[Row, ...]) -> str:
    detail = next(row.detail for row in rows if row.id == "pocket.target_success")
    lines = [
        "| kind of edit | edits | as asked | rest kept | both | PSNR, dB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind, found in detail["by_kind"].items():
        shares = " | ".join(f"{found[name]:.0%}" for name in ("target_success", "preservation", "both"))
        lines.append(f"| {kind} | {found['edits']} | {shares} | {found['psnr_db']:.1f} |")
    return "\n".join(lines)
