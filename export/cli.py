"""`ip2p-fast export`: a model in, a bundle out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ip2p_fast.errors import BadInput

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="pocket, a hub id, a folder or a single file.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The bundle's folder; it must not exist yet.", show_default=False),
    ] = None,
    in_place: Annotated[
        bool,
        typer.Option("--in-place", help="Add the graphs to MODEL, a Hugging Face folder, and use its weights' files."),
    ] = False,
    dtype: Annotated[str, typer.Option(help="What the graphs compute in: float32 or float16.")] = "float32",
    int8: Annotated[bool, typer.Option("--int8", help="Also make the guided step in int8, for OpenVINO.")] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(help="A folder with samples.json: edits to calibrate --int8 on.", show_default="the model's"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object about the bundle.")] = False,
) -> None:
    """Make a bundle of a model: a folder of ONNX graphs that edits without PyTorch."""
    from .bundle_folder import export_bundle, export_in_place

    if (out is None) != in_place:
        raise BadInput("an export goes to a new folder, -o FOLDER, or into the model's own, --in-place: give one")
    if in_place and (int8 or calibration):
        raise BadInput("--int8 makes a file of weights of its own: export to a new folder with -o")
    with _progress() as watch:
        if out is None:
            out = Path(model)
            content = export_in_place(out, dtype, watch)
        else:
            content = export_bundle(model, out, dtype, watch, int8, calibration)
    size = sum(facts["bytes"] for facts in content["files"].values())
    parity = content["parity"]
    if as_json:
        told = ("model", "dtype", "opset", "ir", "files", "parity", "int8")
        facts = {name: content[name] for name in told if name in content}
        print(json.dumps({"out": str(out), "bytes": size, **facts}))
        return
    print(out)
    print(
        f"{size / 1e6:.1f} MB in {dtype}; beside PyTorch in float32: guided noise differs by "
        f"{parity['guided_noise_relative_error']:.1e}, a picture of {parity['edit_steps']} steps by "
        f"{parity['edit_largest_difference']} grey levels at most"
    )
    if "int8" in content:
        quality = content["int8"]["quality"]
        print(
            f"int8: {quality['psnr_db']:.1f} dB to float32 over {quality['edits']} edits of {quality['steps']} steps, "
            f"{quality['lowest_psnr_db']:.1f} dB at worst"
        )


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr that goes when it is done; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("loading the model", total=None)
        yield lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total)
