"""`ip2p-fast bench`: measure, and draw the documents' tables from what was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from ip2p_fast.errors import BadInput

from .bench import Bench, shown_progress
from .compare import Change
from .matrix_command import matrix
from .results import Results, write_results
from .table import RESULTS, ROOT, TRIALS, check_tables, write_tables


class _MeasureByDefault(TyperGroup):
    """`bench cpu-pocket` is `bench run cpu-pocket`: names of benchmarks need no word before them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = args and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if known else ["run", *args])


app = typer.Typer(cls=_MeasureByDefault, add_completion=False, rich_markup_mode=None)


@app.callback()
def _bench() -> None:
    """Measure speed and memory beside diffusers: `bench [NAMES]`, of no names all that this machine can run."""


@app.command("run")
def run(
    names: Annotated[list[str] | None, typer.Argument(help="Names of results files, as cpu-pocket.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny sizes: shows that it runs; its figures mean nothing.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="A folder for NAME.json.", show_default="benchmarks/results, or out/bench")
    ] = None,
    model: Annotated[str, typer.Option(help="The pocket model: pocket, or a folder.")] = "pocket",
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="How long those that send load send it.", show_default="10")
    ] = None,
) -> None:
    """Measure, and write each benchmark's results as soon as it is done."""
    from .quiet import quiet_libraries
    from .suites import chosen, device_of

    suites = chosen(names or [], quick)
    folder = out or (TRIALS if quick else RESULTS)
    if quick and folder.resolve() == RESULTS:
        raise BadInput(f"--quick would overwrite real figures in {folder}: give another folder with --out")
    quiet_libraries()
    written: dict[str, Results] = {}
    with shown_progress() as watch:
        for suite in suites:
            bench = Bench(quick, device_of(suite), model, watch, minutes)
            rows = suite.run(bench)
            rerun = f"ip2p-fast bench {suite.name}" + ("" if minutes is None else f" --minutes {minutes:g}")
            written[suite.name] = write_results(folder / f"{suite.name}.json", rows, rerun, quick)
    Console().print(_summary(written))
    print(folder)


app.command("matrix")(matrix)


@app.command("compare")
def compare(
    before: Annotated[Path, typer.Argument(help="A results file.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="The same benchmark, measured later.", show_default=False)],
    any_machine: Annotated[
        bool, typer.Option("--any-machine", help="Compare files of different machines too.")
    ] = False,
    fail: Annotated[bool, typer.Option("--fail-on-regression", help="Exit with 1 if a figure got worse.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what moved beyond noise between two results files."""
    from .compare import compare as compare_files
    from .results import read_results

    changes = compare_files(read_results(before), read_results(after), any_machine)
    if as_json:
        print(json.dumps({"changes": [asdict(change) for change in changes]}))
    else:
        Console().print(_changes(changes))
    if fail and any(change.worse for change in changes):
        raise typer.Exit(1)


@app.command("table")
def table() -> None:
    """Redraw the tables of README.md and docs/benchmarks.md from benchmarks/results."""
    for path in write_tables(ROOT, RESULTS):
        print(path)


@app.command("check")
def check() -> None:
    """Fail if a table and the results files differ."""
    check_tables(ROOT, RESULTS)


def _summary(written: dict[str, Results]) -> Table:
    found = Table("id", "value", "unit", "target", "met")
    for results in written.values():
        for row in results.rows:
            target = "" if row.target is None else f"{row.target:g}"
            met = {None: "", True: "yes", False: "no"}[row.met]
            found.add_row(row.id, f"{row.value:.4g}", row.unit, target, met)
    return found


def _changes(changes: Sequence[Change]) -> Table:
    found = Table("id", "before", "after", "unit", "change", "verdict")
    for change in changes:
        before, after = ("" if value is None else f"{value:.4g}" for value in (change.before, change.after))
        verdict = "worse" if change.worse else "better" if change.moved else "within noise"
        if change.before is None or change.after is None:
            verdict = "new" if change.before is None else "gone"
        share = "" if change.share is None else f"{change.share:+.1%}"
        found.add_row(change.id, before, after, change.unit, share, verdict)
    return found
