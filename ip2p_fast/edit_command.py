"""`ip2p-fast edit`: pictures and an instruction in, edited pictures out."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from .errors import BadInput
from .images import MAX_PIXELS, before_after, load_image, require_writable, save_image
from .peak_memory import allocator_bytes, process_bytes

if TYPE_CHECKING:
    from .editor import Editor, EditResult


def edit(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN", help="Pictures to edit.", show_default=False)],
    instruction: Annotated[str, typer.Option("--prompt", "-p", help="What to change. Empty: only resize.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="A .png, .jpg or .webp file if one picture comes out; for several, a folder that exists: it gets "
            "NAME.png for each input, and NAME_2.png, NAME_3.png, ... for its further images.",
        ),
    ],
    model: Annotated[str, typer.Option(help="pocket, a hub id, a folder or a single file.")] = "pocket",
    steps: Annotated[int | None, typer.Option(help="Sampling steps.", show_default="the model's")] = None,
    text_guidance: Annotated[
        float | None, typer.Option(help="Higher follows the instruction more.", show_default="the model's")
    ] = None,
    image_guidance: Annotated[
        float | None, typer.Option(help="Higher keeps the input more.", show_default="the model's")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the noise.", show_default="drawn")] = None,
    sampler: Annotated[
        str | None, typer.Option(help="euler_a, euler, ddim, dpmpp_2m or lcm.", show_default="the model's")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Pixels of the longer side.", show_default="the model's")] = None,
    negative: Annotated[str, typer.Option(help="What to avoid.")] = "",
    mask: Annotated[Path | None, typer.Option(help="A picture, white where the input may change.")] = None,
    num_images: Annotated[int, typer.Option(help="Images for each input, at seeds that follow each other.")] = 1,
    guidance_interval: Annotated[
        str, typer.Option(metavar="FROM:TO", help="Part of the steps that is guided; the others cost one row each.")
    ] = "0:1",
    guidance_refresh: Annotated[
        int, typer.Option(metavar="N", help="Evaluate all rows every N-th step; reuse their guidance between.")
    ] = 1,
    deep_refresh: Annotated[
        int, typer.Option(metavar="N", help="Evaluate the UNet's deep part every N-th step. Needs the torch backend.")
    ] = 1,
    backend: Annotated[
        str, typer.Option(help="auto, torch, or for exported graphs onnx, openvino or tensorrt.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    max_rows: Annotated[
        int | None, typer.Option(help="Most UNet rows at once: less memory.", show_default="all")
    ] = None,
    low_memory: Annotated[
        bool, typer.Option("--low-memory", help="Rows one by one, the autoencoder in tiles: slower. Torch backend.")
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile the UNet, for large batches. Torch backend.")
    ] = False,
    max_pixels: Annotated[int, typer.Option(help="Refuse larger inputs.")] = MAX_PIXELS,
    compare: Annotated[bool, typer.Option("--compare", help="Also write NAME_compare.png: before | after.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object about the run.")] = False,
) -> None:
    """Edit pictures by an instruction, all of them in one batch."""
    # All that can be wrong with the files is found before a model is loaded.
    if num_images < 1:
        raise BadInput(f"--num-images is {num_images}: at least 1 is needed")
    pictures = [load_image(path, max_pixels) for path in inputs]
    mask_picture = None if mask is None else load_image(mask, max_pixels)
    places = _places(inputs, out, num_images, compare)
    seed = secrets.randbelow(2**31) if seed is None else seed
    given: dict[str, Any] = {
        "text_guidance": text_guidance,
        "image_guidance": image_guidance,
        "steps": steps,
        "sampler": sampler,
        "size": size,
        "negative": negative,
        "num_images": num_images,
        "guidance_interval": _interval(guidance_interval),
        "guidance_refresh": guidance_refresh,
        "deep_refresh": deep_refresh,
    }

    with _progress() as progress:
        start = time.perf_counter()
        progress("loading the model", 0, 0)
        from .editor import Editor, EditRequest

        editor = Editor.from_pretrained(model, backend, device, dtype, max_rows, max_pixels, low_memory, compile)
        load_seconds = time.perf_counter() - start
        results = editor.edit_many(
            [EditRequest(picture, instruction, seed=seed, mask=mask_picture, **given) for picture in pictures],
            progress=lambda done, total: progress("editing", done, total),
        )

    start = time.perf_counter()
    for picture, result, group in zip(pictures, results, places, strict=True):
        for image, place in zip(result.images, group, strict=True):
            save_image(image, place.image)
            if place.compare is not None:
                save_image(before_after(picture, image), place.compare)
    timings = {"load": load_seconds, **results[0].timings, "save": time.perf_counter() - start}

    if as_json:
        chosen = {"instruction": instruction, "mask": None if mask is None else str(mask), **given}
        print(json.dumps(_report(editor, model, inputs, places, results, seed, timings, chosen)))
        return
    for place in [place for group in places for place in group]:
        print(place.image if place.compare is None else f"{place.image}  {place.compare}")
    seconds = sum(timings.values())
    print(f"{seconds:.2f} s, {timings['load']:.2f} s of them to load the model; seed {seed}", file=sys.stderr)


def _interval(text: str) -> tuple[float, float]:
    """ "FROM:TO" as two numbers; the editor says whether they are an interval."""
    first, _, last = text.partition(":")
    try:
        return float(first), float(last)
    except ValueError:
        raise BadInput(f"--guidance-interval is {text!r}: FROM:TO is needed, two numbers from 0 to 1") from None


@dataclass(frozen=True)
class _Place:
    """Where one edited picture goes, and its before|after picture if that is asked for."""

    image: Path
    compare: Path | None


def _places(inputs: list[Path], out: Path, num_images: int, compare: bool) -> list[list[_Place]]:
    """One list an input. Raises BadInput unless all can be written, are different, and none is an input."""
    if len(inputs) * num_images == 1 and not out.is_dir():
        images = [[out]]
    elif out.is_dir():
        endings = ["", *(f"_{i}" for i in range(2, num_images + 1))]
        images = [[out / f"{path.stem}{ending}.png" for ending in endings] for path in inputs]
    else:
        count = len(inputs) * num_images
        raise BadInput(f"{count} pictures come out, so -o must be a folder that exists: {out} is not")
    places = [
        [_Place(path, path.with_name(f"{path.stem}_compare.png") if compare else None) for path in group]
        for group in images
    ]
    outputs = [path for group in places for place in group for path in (place.image, place.compare) if path is not None]
    sources = {path.resolve() for path in inputs}
    seen: set[Path] = set()
    for path in outputs:
        if path.resolve() in sources:
            raise BadInput(f"{path} is an input and would be overwritten: give another place with -o")
        if path.resolve() in seen:
            raise BadInput(f"{path} would be written twice: rename an input, or edit them one by one")
        seen.add(path.resolve())
        require_writable(path)
    return places


def _report(
    editor: Editor,
    model: str,
    inputs: list[Path],
    places: list[list[_Place]],
    results: list[EditResult],
    seed: int,
    timings: dict[str, float],
    chosen: dict[str, Any],
) -> dict[str, Any]:
    """The object that --json prints; the settings are those in effect, the model's defaults filled in."""
    from .editor import DEFAULTS

    loaded = editor.backend
    defaults = {**DEFAULTS, **loaded.info.defaults}
    effective = {name: defaults.get(name) if value is None else value for name, value in chosen.items()}
    flat = [place for group in places for place in group]
    on_gpu = loaded.name == "torch" and loaded.device.startswith("cuda")
    return {
        "inputs": [str(path) for path in inputs],
        "outputs": [str(place.image) for place in flat],
        "compare": [str(place.compare) for place in flat if place.compare is not None],
        "seed": seed,
        "timings": timings,
        "row_evaluations": sum(result.row_evaluations for result in results),
        "shallow_evaluations": sum(result.shallow_evaluations for result in results),
        "peak_memory_bytes": allocator_bytes(loaded.device) if on_gpu else process_bytes(),
        "settings": effective
        | {"model": model, "backend": loaded.name, "device": loaded.device, "dtype": loaded.dtype},
    }


class _Show(Protocol):
    def __call__(self, stage: str, done: int, total: int) -> None: ...


@contextmanager
def _progress() -> Iterator[_Show]:
    """A bar on stderr that goes when it is done; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total or None)

        yield show
