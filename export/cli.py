"""`ip2p-fast export`: a model in, a bundle out; engines and a model repository of a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ip2p_fast.default_command import ModelByDefault
from ip2p_fast.errors import BadInput

app = typer.Typer(cls=ModelByDefault, add_completion=False, rich_markup_mode=None)


@app.callback()
def _export() -> None:
    """Make a bundle of a model, `export MODEL -o BUNDLE`, or of a bundle what some servers and GPUs want."""


@app.command("model")
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
    int8_weights: Annotated[
        bool, typer.Option("--int8-weights", help="The same with weights in int8 alone: less memory, hardly a loss.")
    ] = False,
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
    if in_place and (int8 or int8_weights or calibration):
        raise BadInput("--int8 makes a file of weights of its own: export to a new folder with -o")
    if int8 and int8_weights:
        raise BadInput("--int8 and --int8-weights are two ways to make one graph: give one")
    with _progress() as watch:
        if out is None:
            out = Path(model)
            content = export_in_place(out, dtype, watch)
        else:
            content = export_bundle(model, out, dtype, watch, int8, calibration, int8_weights)
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


@app.command("engines")
def engines(
    bundle: Annotated[
        Path, typer.Argument(help="An exported bundle; its folder gets the engines.", show_default=False)
    ],
    gpu: Annotated[str, typer.Option(help="The architecture to build for, as sm89.", show_default=False)],
    max_edits: Annotated[int, typer.Option(help="Most edits in one step.")] = 4,
    sizes: Annotated[
        str | None,
        typer.Option(help="Smallest, usual and largest side in pixels, as 256,512,768.", show_default="by the model's"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object about the engines.")] = False,
) -> None:
    """Build TensorRT engines of a bundle; TensorRT-RTX builds where there is no GPU."""
    from ip2p_fast.backends.tensorrt_engine import FACTS, Limits, build_engines
    from ip2p_fast.bundle import read_bundle

    read = read_bundle(bundle)
    limits = Limits.of(read, max_edits, None if sizes is None else _three(sizes))
    with _progress() as watch:
        folder = build_engines(read, gpu, limits, watch)
    if as_json:
        print(json.dumps({"out": str(folder), **json.loads((folder / FACTS).read_text(encoding="utf-8"))}))
    else:
        print(folder)


@app.command("model-repository")
def model_repository(
    bundle: Annotated[Path, typer.Argument(help="An exported bundle.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The repository; it must not exist.", show_default=False)],
    name: Annotated[str, typer.Option(help="Of the model in the server.")] = "ip2p_edit",
    max_batch: Annotated[int, typer.Option(help="Most edits that the server puts together.")] = 8,
    queue_delay_ms: Annotated[float, typer.Option(help="How long it may wait for more of them.")] = 5.0,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server."""
    from .model_repository import write_repository

    print(write_repository(bundle, out, name, max_batch, queue_delay_ms))


def _three(sizes: str) -> tuple[int, int, int]:
    try:
        smallest, size, largest = (int(part) for part in sizes.split(","))
    except ValueError:
        raise BadInput(f"--sizes is {sizes!r}: three numbers with commas are needed, as 256,512,768") from None
    return smallest, size, largest


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
