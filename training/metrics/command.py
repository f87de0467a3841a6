"""`ip2p-fast evaluate benchmark`: edits a public benchmark, scores the edits, prints one table."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ip2p_fast.errors import BadInput


def benchmark(
    folder: Annotated[Path, typer.Argument(help="The benchmark, unpacked.")],
    layout: Annotated[str, typer.Option(help="emu-edit, magicbrush or pie-bench.")],
    clip: Annotated[str, typer.Option(help="Folder or hub id of a CLIP, or pocket.")],
    model: Annotated[str | None, typer.Option(help="Makes the edits that --edited lacks.", show_default="none")] = None,
    edited: Annotated[
        Path | None,
        typer.Option(help="Folder of edited pictures, ID.png; without --model they were made elsewhere."),
    ] = None,
    dino: Annotated[str | None, typer.Option(help="Folder or hub id of a ViT: DINO, structure.")] = None,
    lpips: Annotated[Path | None, typer.Option(help="ImageNet weights of SqueezeNet 1.1: LPIPS.")] = None,
    multi_turn: Annotated[bool, typer.Option("--multi-turn", help="MagicBrush: whole sessions, last turn.")] = False,
    split: Annotated[str | None, typer.Option(help="Emu Edit: test or validation.", show_default="test")] = None,
    captions: Annotated[str | None, typer.Option(help="MagicBrush: local or global.", show_default="local")] = None,
    limit: Annotated[int | None, typer.Option(help="Cases, or sessions.", show_default="all", min=1)] = None,
    steps: Annotated[int | None, typer.Option(show_default="the model's", min=1)] = None,
    text_guidance: Annotated[float | None, typer.Option(show_default="the model's")] = None,
    image_guidance: Annotated[float | None, typer.Option(show_default="the model's")] = None,
    seed: Annotated[int, typer.Option(help="Of the noise, with each case's id, and of the intervals.", min=0)] = 0,
    batch: Annotated[int, typer.Option(help="Cases edited together.", min=1)] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write figures and cases here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Edit a public benchmark, or take edits made elsewhere, and print its columns with 95% intervals.

    Edits are written as they are made, and those that are there are not made again.
    """
    from ip2p_fast import Editor

    from ..cli import _device, progress
    from ..dataset.pairs.clip_scores import ClipScorer
    from .benchmarks import BENCHMARKS, Models
    from .dino import Dino
    from .edited import claim_folder, make_edits, require_edits
    from .figures import report, score_cases, summarise, table
    from .perceptual import Lpips

    if layout not in BENCHMARKS:
        raise BadInput(f"there is no layout {layout!r}: choose one of {', '.join(BENCHMARKS)}")
    if model is None and edited is None:
        raise BadInput("give --model to make the edits, --edited FOLDER to take them from, or both")
    if out is not None and not out.parent.is_dir():
        raise BadInput(f"cannot write {out}: there is no folder {out.parent}; make it first")
    chosen = BENCHMARKS[layout]
    cases = partial(chosen.read, folder, limit=limit, **_options(layout, multi_turn, split, captions))
    pictures = edited if edited is not None else Path("runs") / "edited" / layout
    place = _device(device)

    with progress() as watch:
        ids = {case.id: case.scored for case in cases()}  # every picture is decoded once before hours of work
        total, scored = len(ids), sum(ids.values())
        if not total:
            raise BadInput(f"{folder} holds no cases")
        if model is None:
            require_edits(pictures, (name for name, counts in ids.items() if counts))
        models = Models(
            ClipScorer(clip, place),
            None if dino is None else Dino(dino, place),
            None if lpips is None else Lpips(lpips, place),
        )
        settings = {"steps": steps, "text_guidance": text_guidance, "image_guidance": image_guidance}
        if model is not None:
            editor = Editor.from_pretrained(model, device=place)
            claim_folder(pictures, {"layout": layout, "model": model, "seed": seed, **settings})
            make_edits(
                editor,
                cases(),
                pictures,
                settings,
                seed,
                batch,
                lambda done: watch("edits", done / total, f"{done} of {total}"),
            )
        found = score_cases(
            chosen, models, cases(), pictures, lambda done: watch("scores", done / scored, f"{done} of {scored}")
        )
    summary = summarise(chosen, found, seed)
    figures: dict[str, Any] = {
        "layout": layout,
        "multi_turn": multi_turn,
        "model": model,
        "edited": str(pictures),
        "clip": clip,
        "dino": dino,
        "lpips": None if lpips is None else str(lpips),
        "settings": {**settings, "seed": seed, "limit": limit},
        **report(chosen, summary, found),
    }
    if out is not None:
        by_case = {name: {"group": group, **_plain(scores)} for name, (group, scores) in found.items()}
        _write(out, figures | {"by_case": by_case})
    if as_json:
        print(json.dumps(figures))
        return
    print(table(chosen.columns, summary))
    for column in chosen.columns:
        if column.needs and getattr(models, column.needs) is None:
            print(f"{column.name} is not measured: it needs --{column.needs}")


def _options(layout: str, multi_turn: bool, split: str | None, captions: str | None) -> dict[str, Any]:
    """What a layout's reader is told; an option of another layout is refused."""
    given = {"multi_turn": multi_turn or None, "split": split, "captions": captions}
    of = {"multi_turn": "magicbrush", "split": "emu-edit", "captions": "magicbrush"}
    for name, value in given.items():
        if value is not None and of[name] != layout:
            raise BadInput(f"--{name.replace('_', '-')} belongs to the layout {of[name]}, not to {layout}")
    return {name: value for name, value in given.items() if value is not None}


def _plain(scores: dict[str, float]) -> dict[str, float | str | None]:
    """JSON has no NaN and no infinity."""
    return {
        name: None if value != value else str(value) if abs(value) == float("inf") else value
        for name, value in scores.items()
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    partial_path = path.with_name(f".{path.name}.part")
    try:
        partial_path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        os.replace(partial_path, path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
