"""`ip2p-fast evaluate curves | ablations | grid | compare | limits | bias | claims | figures`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ip2p_fast.errors import BadInput

from .command_options import (
    Base,
    Clip,
    Data,
    Device,
    Guidance,
    Json,
    Model,
    Out,
    Picture,
    ReaderFolder,
    Results,
    Scale,
    Scales,
    Steps,
    counted,
    finish,
    loaded_editor,
    loaded_reader,
    named_model,
    numbers,
    output_files,
    place_of,
    prepared,
    write_curves,
)

if TYPE_CHECKING:
    from ip2p_fast.benchmarks.results import Row

    from .kinds import ByKind


def add_figures(app: typer.Typer) -> None:
    """Registers the commands."""
    for command in (curves, ablations, grid, compare, limits, bias, claims, figures):
        app.command(command.__name__)(command)


def curves(
    context: typer.Context,
    model: Model = "pocket",
    base: Base = "pocket-base",
    clip: Clip = "pocket",
    data: Data = None,
    reader: ReaderFolder = None,
    limit: Annotated[int, typer.Option(help="Edits at each point.", min=2)] = 300,
    scales: Scales = None,
    strengths: Annotated[str | None, typer.Option(help="SDEdit's.", show_default="0.1 to 1.0")] = None,
    text_guidance: Scale = None,
    base_guidance: Guidance = None,
    steps: Steps = None,
    device: Device = "auto",
    out: Out = None,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Figure 8: image similarity against direction similarity, over s_I and, by SDEdit, over strength."""
    from .sdedit import SDEdit
    from .sweep import IMAGE_SCALES, STRENGTHS, from_count, settings_of, sweep_guidance, sweep_strength

    files = output_files("curves", out, picture)
    across, strong = numbers("--scales", scales, IMAGE_SCALES), numbers("--strengths", strengths, STRENGTHS)
    if not all(0 < strength <= 1 for strength in strong):
        raise BadInput(f"--strengths is {strengths!r}: each must be above 0 and at most 1")
    work = prepared(clip, data, reader, limit, device)
    editor = loaded_editor(model, device)
    sdedit = SDEdit.from_pretrained(base, base_guidance, steps or int(settings_of(editor, {})["steps"]), device)
    settings = {"text_guidance": text_guidance, "steps": steps}
    with counted(len(work.cases) * (len(across) + len(strong))) as watch:
        ours = sweep_guidance(editor, work.cases, work.scorer, across, settings, advance=watch)
        done = len(across) * len(work.cases)
        theirs = sweep_strength(sdedit, work.cases, work.scorer, strong, {"model": base}, from_count(watch, done))
    write_curves(context, files, [ours, theirs], as_json)


def ablations(
    context: typer.Context,
    models: Annotated[list[str], typer.Argument(help="NAME=FOLDER: full, tenth, hundredth, unfiltered.")],
    clip: Clip = "pocket",
    data: Data = None,
    reader: ReaderFolder = None,
    limit: Annotated[int, typer.Option(help="Edits at each point.", min=2)] = 200,
    scales: Annotated[
        str | None, typer.Option(help="Of s_I, with commas between.", show_default="1.0,1.4,1.8,2.2")
    ] = None,
    text_guidance: Scale = None,
    steps: Steps = None,
    device: Device = "auto",
    out: Out = None,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Figure 10: curves of models that were trained on less data, or on data without the CLIP filter."""
    from .sweep import IMAGE_SCALES, from_count, settings_of, sweep_guidance

    files = output_files("ablations", out, picture)
    named = [named_model(text) for text in models]
    if len({name for name, _ in named}) < len(named):
        raise BadInput(f"two models have one name: {', '.join(name for name, _ in named)}")
    across = numbers("--scales", scales, IMAGE_SCALES[::2])
    work = prepared(clip, data, reader, limit, device)
    editors = [(name, loaded_editor(folder, device)) for name, folder in named]
    # every model with the first one's settings: their own may differ
    settings = settings_of(editors[0][1], {"text_guidance": text_guidance, "steps": steps})
    found = []
    each = len(across) * len(work.cases)
    with counted(each * len(editors)) as watch:
        for place, (name, editor) in enumerate(editors):
            found.append(
                sweep_guidance(
                    editor, work.cases, work.scorer, across, settings, name, advance=from_count(watch, place * each)
                )
            )
    write_curves(context, files, found, as_json)


def grid(
    context: typer.Context,
    model: Model = "pocket",
    clip: Clip = "pocket",
    data: Data = None,
    reader: ReaderFolder = None,
    limit: Annotated[int, typer.Option(help="Edits measured in each cell.", min=2)] = 60,
    text_scales: Annotated[str | None, typer.Option(help="Of s_T.", show_default="the model's x 1/4, 1/2, 1, 1.5")] = (
        None
    ),
    image_scales: Annotated[str | None, typer.Option(help="Of s_I.", show_default="1.0,1.4,1.8,2.2")] = None,
    scene: Annotated[int, typer.Option(help="The case that is shown.", min=0)] = 0,
    steps: Steps = None,
    device: Device = "auto",
    out: Out = None,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Figure 4: one edit over s_T and s_I, and what both do to the two similarities."""
    from .grid import grid_rows, measure_grid
    from .sweep import IMAGE_SCALES, settings_of

    files = output_files("grid", out, picture)
    across = numbers("--image-scales", image_scales, IMAGE_SCALES[::2])
    given = numbers("--text-scales", text_scales, ())
    if scene >= limit:
        raise BadInput(f"--scene is {scene}: with --limit {limit} the cases are 0 to {limit - 1}")
    work = prepared(clip, data, reader, limit, device)
    if scene >= len(work.cases):
        raise BadInput(f"--scene is {scene}: the data have {len(work.cases)} cases")
    editor = loaded_editor(model, device)
    down = given or tuple(settings_of(editor, {})["text_guidance"] * share for share in (0.25, 0.5, 1.0, 1.5))
    with counted(len(across) * len(down) * len(work.cases)) as watch:
        found = measure_grid(editor, work.cases, work.scorer, down, across, {"steps": steps}, scene, watch)
    finish(context, files, grid_rows(found), as_json)


def compare(
    context: typer.Context,
    model: Model = "pocket",
    base: Base = "pocket-base",
    clip: Clip = "pocket",
    data: Data = None,
    reader: ReaderFolder = None,
    scenes: Annotated[int, typer.Option(help="In the pocket world, as evenly over the kinds as may be.", min=1)] = 10,
    strength: Annotated[float, typer.Option(help="SDEdit's.")] = 0.5,
    iterations: Annotated[int, typer.Option(help="Steps of Text2Live's training, an edit.", min=1)] = 200,
    base_guidance: Guidance = None,
    steps: Steps = None,
    device: Device = "auto",
    out: Out = None,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Figure 9: the same edits by InstructPix2Pix, SDEdit and Text2Live; the first cases of every kind, not chosen."""
    from .compare import compare_rows, compared_cases, measure_comparison
    from .sdedit import SDEdit
    from .sweep import settings_of
    from .text2live import DifferentiableClip, Training

    files = output_files("compare", out, picture)
    if not 0 < strength <= 1:
        raise BadInput(f"--strength is {strength:g}: it must be above 0 and at most 1")
    work = prepared(clip, data, reader, scenes, device, compared_cases)
    editor = loaded_editor(model, device)
    sdedit = SDEdit.from_pretrained(base, base_guidance, steps or int(settings_of(editor, {})["steps"]), device)
    layer = DifferentiableClip(clip, place_of(device))
    with counted(len(work.cases) * iterations, "steps") as watch:
        found = measure_comparison(
            editor, sdedit, layer, work.cases, work.scorer, strength, Training(iterations), {"steps": steps}, watch
        )
    finish(context, files, compare_rows(found), as_json)


def limits(
    context: typer.Context,
    model: Model = "pocket",
    reader: ReaderFolder = None,
    per_kind: Annotated[int, typer.Option(help="Edits of each kind.", min=1)] = 60,
    steps: Steps = None,
    device: Device = "auto",
    out: Out = None,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Figure 13: how many edits of each kind succeed; counting and moving are the hard ones."""
    from .kinds import limit_rows

    _measure_kinds(context, "limits", limit_rows, model, reader, per_kind, steps, device, out, picture, as_json)


def bias(
    context: typer.Context,
    model: Model = "pocket",
    reader: ReaderFolder = None,
    per_kind: Annotated[int, typer.Option(help="Edits of each kind.", min=1)] = 60,
    steps: Steps = None,
    device: Device = "auto",
    out: Out = None,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Figure 14: which attributes change unasked under each kind of edit, and to what they drift."""
    from .kinds import bias_rows

    _measure_kinds(context, "bias", bias_rows, model, reader, per_kind, steps, device, out, picture, as_json)


def claims(results: Results = None, as_json: Json = False) -> None:
    """The paper's claims, each with its effect and 95% interval; read from results files, no model is run."""
    from .claims import check_claims
    from .document import FIGURES_OF_PAPER

    found = check_claims(results or FIGURES_OF_PAPER)
    for claim in found:
        if claim.missing is not None:
            print(f"not measured: {claim.claim}: {claim.missing}", file=sys.stderr)
    if as_json:
        print(json.dumps([claim.as_json() for claim in found]))
        return
    for claim in found:
        said = "not measured" if claim.holds is None else "holds" if claim.holds else "does not hold"
        numbers = "" if claim.interval is None else f"{claim.effect:+.4f} [{claim.interval[0]:+.4f}, "
        print(f"{said:14} {claim.claim}  {numbers}{'' if claim.interval is None else f'{claim.interval[1]:+.4f}]'}")


def figures(
    results: Results = None,
    document: Annotated[Path, typer.Option(help="Its tables are rewritten between markers.")] = Path("docs/results.md"),
    pictures: Annotated[Path, typer.Option(help="The folder of the figures.")] = Path("docs/figures"),
    pdf: Annotated[bool, typer.Option("--pdf", help="PDF in place of PNG.")] = False,
) -> None:
    """Redraw every figure and table from results files; no model is run."""
    from .document import FIGURES_OF_PAPER, redraw

    folder = results or FIGURES_OF_PAPER
    written, missing = redraw(folder, document, pictures, ".pdf" if pdf else ".png")
    for name in missing:
        print(f"{folder / name}.json is not there: measure it with ip2p-fast evaluate {name}", file=sys.stderr)
    for path in written:
        print(path)


def _measure_kinds(
    context: typer.Context,
    name: str,
    rows_of: Callable[[ByKind], Sequence[Row]],
    model: str,
    reader: Path | None,
    per_kind: int,
    steps: int | None,
    device: str,
    out: Path | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    from ..pocket.split import KINDS
    from .kinds import edit_by_kind

    files = output_files(name, out, picture)
    judge = loaded_reader(reader, device)
    editor = loaded_editor(model, device)
    with counted(per_kind * len(KINDS)) as watch:
        found = edit_by_kind(editor, judge, per_kind, {"steps": steps}, watch)
    finish(context, files, rows_of(found), as_json)
