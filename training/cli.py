"""`ip2p-fast train` and `ip2p-fast evaluate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ip2p_fast.default_command import ModelByDefault
from ip2p_fast.errors import BadInput

from .figures.command import add_figures
from .metrics.command import benchmark
from .pocket.cost_command import cost
from .trainer.cli import plan, train_model

train_app = typer.Typer(cls=ModelByDefault, add_completion=False, rich_markup_mode=None)
evaluate_app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure models.")

_JSON = typer.Option("--json", help="Print one JSON object and nothing else.")
_MODEL = typer.Option(help="pocket, or the folder of another pocket model.")


train_app.command("model")(train_model)
train_app.command("plan")(plan)


@train_app.callback()
def _train() -> None:
    """Train an edit model on pairs, `train MODEL --data PAIRS -o OUT`, or the pocket model."""


@train_app.command("pocket")
def train_pocket(
    stage: Annotated[
        str,
        typer.Argument(
            help="all, or one of data, vae, clip, latents, unet, decoder, reader, captions, base, student, few, "
            "writer; of --route paper triplets, pairs, unfiltered, paper, ablations, control."
        ),
    ] = "all",
    route: Annotated[
        str, typer.Option(help="rendered, or paper: from pairs that a writer and Prompt-to-Prompt made.")
    ] = "rendered",
    size: Annotated[str, typer.Option(help="A row of training/pocket/sizes.py.")] = "cpu64",
    out: Annotated[Path, typer.Option(help="Pictures and checkpoints go here.")] = Path("runs/pocket"),
    model: Annotated[
        Path | None,
        typer.Option(
            help="Finished components go here; --route paper takes them from here.",
            show_default="OUT/SIZE-model; of --route paper the shipped one",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the stage's checkpoint.")] = False,
    minutes: Annotated[
        float | None, typer.Option(help="Train each stage this long.", show_default="the size's steps")
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile the UNet: faster after minutes.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of weights, batches and noise.")] = 0,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Train the pocket model on its procedural world: pictures, autoencoder, CLIP, UNet, attribute reader.

    By the paper's route, its UNet anew from the text-to-image model, on generated pairs; and figure 10's models.
    """
    if minutes is not None and not minutes > 0:
        raise BadInput(f"--minutes is {minutes}: it must be above 0")
    from ip2p_fast.checkpoints import POCKET

    from .pocket.paper_route import PAPER
    from .pocket.sizes import size_named
    from .pocket.stages import RENDERED, Work, train_stage

    routes = {"rendered": RENDERED, "paper": PAPER}
    if route not in routes:
        raise BadInput(f"there is no route {route!r}: choose one of {', '.join(routes)}")
    row = size_named(size)
    figures: dict[str, float] = {}
    with progress() as watch:
        work = Work(
            size=row,
            runs=out,
            model=model or (POCKET if route == "paper" else out / f"{size}-model"),
            device=_device(device),
            seed=seed,
            resume=resume,
            minutes=minutes,
            compile=compile,
            watch=watch,
        )
        for name in routes[route].stages if stage == "all" else (stage,):
            figures |= train_stage(name, work, routes[route])
    _print(figures, as_json)


@evaluate_app.command("pocket")
def evaluate_pocket(
    model: Annotated[str, _MODEL] = "pocket",
    limit: Annotated[int, typer.Option(help="Held-out scenes, one edit each.", min=1)] = 1000,
    text_guidance: Annotated[float | None, typer.Option(show_default="the model's")] = None,
    image_guidance: Annotated[float | None, typer.Option(show_default="the model's")] = None,
    steps: Annotated[int | None, typer.Option(show_default="the model's")] = None,
    record: Annotated[
        Path | None, typer.Option(help="Also measure the components, and write a results file here.")
    ] = None,
    document: Annotated[Path | None, typer.Option(help="With --record: redraw this document's table from it.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="With --record: the results file that this model is to come near.")
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """How many edits of held-out scenes do what was asked, and keep all else."""
    from ip2p_fast import Editor

    from .pocket.evaluate import evaluate
    from .pocket.record import draw_table
    from .pocket.record import record as write_record

    _require_record(document, record)

    with progress() as watch:
        editor = Editor.from_pretrained(model)
        scales = {"text_guidance": text_guidance, "image_guidance": image_guidance, "steps": steps}
        report = evaluate(editor, limit, scales, lambda done: watch("edits", done / limit, f"{done} of {limit}"))
        if record is not None:
            write_record(record, editor, report, teacher)
            if document is not None:
                draw_table(document, record)
    _print(report.as_json(), as_json)


@evaluate_app.command("sheet")
def evaluate_sheet(
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write.")],
    model: Annotated[str, _MODEL] = "pocket",
) -> None:
    """Draw a sheet of 24 edits: the first held-out scenes of every kind of edit, none chosen by hand."""
    from ip2p_fast import Editor
    from ip2p_fast.images import save_image

    from .pocket.sheet import draw_sheet

    save_image(draw_sheet(Editor.from_pretrained(model)), out)
    print(out)


@evaluate_app.command("base")
def evaluate_base(
    model: Annotated[str, typer.Option(help="A text-to-image model of the pocket world.")] = "pocket-base",
    reader: Annotated[Path | None, typer.Option(help="The reader's folder.", show_default="the pocket model's")] = None,
    limit: Annotated[int, typer.Option(help="Held-out captions, one picture each.", min=1)] = 1000,
    steps: Annotated[int, typer.Option(help="Of euler_a.", min=1)] = 25,
    cfg: Annotated[str | None, typer.Option(help="From:to; guidance.", show_default="the model's")] = None,
    record: Annotated[Path | None, typer.Option(help="Write a results file here.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """How many pictures show everything that their caption says."""
    from ip2p_fast.checkpoints import POCKET

    from .dataset.options import guidance_of, number_range
    from .dataset.pairs.generator import Drawing, PairGenerator
    from .pocket.base_figures import measure_base, record_base
    from .pocket.reader import load_reader

    guidance = number_range("--cfg", cfg) if cfg else guidance_of(model)  # a wrong one is refused before work starts
    generator = PairGenerator.from_pretrained(model, Drawing(steps=steps, at_once=16))
    with progress() as watch:
        report = measure_base(
            generator,
            load_reader(reader or POCKET / "reader"),
            limit,
            guidance,
            lambda done: watch("pictures", done / limit, f"{done} of {limit}"),
        )
    if record is not None:
        record_base(record, report)
    _print(report.as_json(), as_json)


@evaluate_app.command("writer")
def evaluate_writer(
    model: Annotated[str, typer.Option(help="A language model that writes triplets: a folder.")] = "pocket-writer",
    limit: Annotated[int, typer.Option(help="Triplets to have written, of held-out scenes.", min=1)] = 5000,
    batch: Annotated[int, typer.Option(help="Captions written to at once.", min=1)] = 256,
    record: Annotated[Path | None, typer.Option(help="Write a results file here.")] = None,
    document: Annotated[Path | None, typer.Option(help="With --record: redraw this document's table from it.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """How many triplets that a model writes are in form, and right about the pocket world."""
    from .pocket.writer_figures import draw_writer_table, measure_writer, record_writer

    _require_record(document, record)
    with progress() as watch:
        report = measure_writer(model, limit, batch, lambda done: watch("triplets", done / limit, f"{done} of {limit}"))
    if record is not None:
        record_writer(record, report)
        if document is not None:
            draw_writer_table(document, record)
    _print(report.as_json(), as_json)


evaluate_app.command("benchmark")(benchmark)
add_figures(evaluate_app)
evaluate_app.command("cost")(cost)


def _require_record(document: Path | None, record: Path | None) -> None:
    if document is not None and record is None:
        raise BadInput("--document needs --record: a table is drawn from a results file")


def _device(name: str) -> str:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise BadInput(f"there is no device {name!r}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("device cuda: this machine has no usable CUDA device; use --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


@contextmanager
def progress() -> Iterator[Callable[[str, float, str], None]]:
    """A progress bar on stderr; where stderr is no terminal, a line each time."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)

        def watch(stage: str, done: float, line: str) -> None:
            bar.update(task, description=f"{stage}: {line}", completed=done)
            if not console.is_terminal:
                print(f"{stage} {done:.1%} {line}", file=sys.stderr, flush=True)

        yield watch


def _print(figures: dict, as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        if not isinstance(value, dict):
            print(f"{name:28} {value:.4g}" if isinstance(value, float) else f"{name:28} {value}")
            continue
        for kind, row in value.items():
            print(f"  {kind:26} " + "  ".join(f"{key} {number:.3g}" for key, number in row.items()))
