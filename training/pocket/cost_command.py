"""`ip2p-fast evaluate cost`: measures quality against cost, or redraws it from a results file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ip2p_fast.errors import BadInput


def cost(
    model: Annotated[str, typer.Option(help="pocket, or the folder of another pocket model: the teacher.")] = "pocket",
    student: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="A distilled model, at 8, 4, 2 and 1 steps; repeat.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Held-out scenes, one edit each.", min=1)] = 400,
    rounds: Annotated[int, typer.Option(help="Timed edits of each variant, one at a time.", min=1)] = 12,
    work: Annotated[
        Path, typer.Option(help="Verdicts are kept here, variant by variant: a run that was cut off goes on.")
    ] = Path("runs/pocket/cost"),
    record: Annotated[Path | None, typer.Option(help="Write a results file here.")] = None,
    figure: Annotated[Path | None, typer.Option(help="With --record: draw the plot here.")] = None,
    document: Annotated[Path | None, typer.Option(help="With --record: redraw this document's table.")] = None,
    redraw: Annotated[bool, typer.Option("--redraw", help="Measure nothing: draw from --record as it is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Quality against cost: fewer steps, other samplers, savings that need no training, and distilled models."""
    from ip2p_fast.benchmarks.results import write_results

    from ..cli import _print, progress
    from .cost import VARIANTS, measure_cost, student_variants
    from .cost_figures import cost_of, cost_rows, draw_cost, draw_cost_table, read_cost

    if record is None and (figure or document or redraw):
        raise BadInput("--figure, --document and --redraw need --record: they draw from a results file")
    if redraw and record is not None:
        rows = read_cost(record)
    else:
        variants = (*VARIANTS, *student_variants(student or ()))
        with progress() as watch:
            measured = measure_cost(model, variants, limit, rounds, work, watch)
        rows = cost_rows(measured)
        if record is not None:
            files = {"--record": record, "--figure": figure, "--document": document}
            options = [f"--model {model}", *(f"--student {one}" for one in student or ()), f"--limit {limit}"]
            options += [f"{option} {path.as_posix()}" for option, path in files.items() if path is not None]
            write_results(record, rows, rerun=f"ip2p-fast evaluate cost {' '.join(options)}")
    if figure is not None:
        draw_cost(figure, rows)
    if document is not None and record is not None:
        draw_cost_table(document, record)
    shown = {
        row.id.rpartition(".")[2]: {
            "both": row.value,
            "target_success": row.detail["target_success"],
            "preservation": row.detail["preservation"],
            "psnr_db": row.detail["psnr_db"],
            "rows": cost_of(row, "rows"),
            "milliseconds": cost_of(row, "milliseconds"),
        }
        for row in rows
    }
    _print({"edits": rows[0].detail["edits"], "variants": shown}, as_json)
