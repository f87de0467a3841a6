"""`ip2p-fast bench matrix`: the matrix of any model, with what is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ip2p_fast.errors import BadInput

from . import matrix_report
from .bench import Bench, shown_progress
from .results import write_results
from .table import RESULTS, TRIALS


def matrix(
    model: Annotated[
        str,
        typer.Option(help="pocket, a folder, a hub id, or sd15: random weights of Stable Diffusion 1.5's size."),
    ] = "pocket",
    sizes: Annotated[
        str | None, typer.Option(help="Sides of pictures, the most important first.", show_default="the model's")
    ] = None,
    batches: Annotated[str, typer.Option(help="Edits in a batch, the most important first.")] = "1,4,16",
    steps: Annotated[str, typer.Option(help="Steps of an edit, the most important first.")] = "20,50",
    minutes: Annotated[
        float, typer.Option(help="Of measuring: no cell but the first is begun that would take longer.", min=0.0)
    ] = 10.0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.", show_default="cuda where there is one")] = None,
    sd_cpp: Annotated[Path | None, typer.Option(help="The program sd-cli of stable-diffusion.cpp.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tiny model: shows that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="A folder for the results file, its table and its plot.")] = None,
) -> None:
    """Edits a second of ours and of every peer installed, over sizes, batches and steps; memory, first edit, energy."""
    asked_sizes = None if sizes is None else _numbers("--sizes", sizes)
    numbers = _numbers("--batches", batches), _numbers("--steps", steps)
    from .matrix import Asked, measure_matrix
    from .quiet import quiet_libraries

    asked = Asked(model, asked_sizes, *numbers, minutes, sd_cpp)
    chosen = _device(device)
    folder = out or (TRIALS if quick else RESULTS)
    if quick and folder.resolve() == RESULTS:
        raise BadInput(f"--quick would overwrite real figures in {folder}: give another folder with --out")
    name = matrix_report.suite("gpu" if chosen == "cuda" else "cpu", model)
    quiet_libraries()
    with shown_progress() as watch:
        rows = measure_matrix(Bench(quick, chosen, model, watch), asked)
    given = (
        ("--model", model, "pocket"),
        ("--sizes", sizes, None),
        ("--batches", batches, "1,4,16"),
        ("--steps", steps, "20,50"),
        ("--minutes", f"{minutes:g}", "10"),
        ("--device", device, None),
        ("--sd-cpp", sd_cpp, None),
    )
    rerun = " ".join(["ip2p-fast bench matrix", *(f"{flag} {value}" for flag, value, usual in given if value != usual)])
    results = write_results(folder / f"{name}.json", rows, rerun, quick)
    report = matrix_report.table(results)
    if folder.resolve() != RESULTS:  # there, `bench table` puts both into the documents
        (folder / f"{name}.md").write_text(report + "\n", encoding="utf-8")
        matrix_report.draw(results, folder / f"{name}.png")
    Console().print(report, soft_wrap=True, markup=False, highlight=False)
    print(folder / f"{name}.json")


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    """Raises BadInput for what are no whole numbers above 0, or one twice."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(set(parts)) != len(parts):
        raise BadInput(f"{flag} {text!r}: different whole numbers above 0 with commas between them, as 1,4,16")
    return tuple(int(part) for part in parts)


def _device(asked: str | None) -> str:
    import torch

    if asked not in (None, "cpu", "cuda"):
        raise BadInput(f"unknown device {asked!r}: choose cpu or cuda")
    if asked == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device cuda: PyTorch sees no CUDA device")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")
