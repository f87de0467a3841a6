"""`ip2p-fast distill`: a student that needs one row a step, and few steps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from ip2p_fast.errors import BadInput

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def distill(
    model: Annotated[str, typer.Argument(help="An edit model: a folder in Hugging Face layout, a hub id, or pocket.")],
    data: Annotated[
        list[str], typer.Option("--data", help="Pairs in any form of `ip2p-fast dataset`; may be given several times.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the student; checkpoints are in its training/.")],
    stage: Annotated[
        str, typer.Option(help="guidance: three rows become one; consistency: many steps become few; or both.")
    ] = "both",
    steps: Annotated[int, typer.Option(help="Of the optimizer, in each stage.")] = 2000,
    batch: Annotated[int, typer.Option(help="Pairs a step of one process.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW; falls to zero by a cosine.")] = 1e-5,
    warmup: Annotated[int, typer.Option(help="Steps.")] = 100,
    ema: Annotated[float, typer.Option(help="Largest decay of the weights' average.")] = 0.999,
    text_guidance: Annotated[
        str | None, typer.Option(help="LOW:HIGH that the student is to know.", show_default="1 to 2 own - 1")
    ] = None,
    image_guidance: Annotated[
        str | None, typer.Option(help="LOW:HIGH that the student is to know.", show_default="1 to 2 own - 1")
    ] = None,
    hop: Annotated[
        int, typer.Option(help="Teacher's evaluations before the student's own takes over; 0: it goes all the way.")
    ] = 0,
    resolution: Annotated[
        int | None, typer.Option(help="Side of the crops in pixels.", show_default="the model's, else 256")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of latents and texts encoded once.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first broken record or file.")] = False,
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Less memory, a third more time.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile the UNet: faster after minutes.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoints in OUT.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Distil an InstructPix2Pix model into a student that is told the guidance scales: one row a step, few steps."""
    from ..cli import _device, progress
    from ..dataset.options import number_range
    from ..trainer.recipe import Recipe
    from .consistency import Walk
    from .distillation import Job, distill
    from .model import own_resolution

    if hop < 0:
        raise BadInput(f"--hop is {hop}: it must be 0 or more")
    recipe = Recipe(
        steps=steps,
        batch=batch,
        accumulation=1,
        learning_rate=learning_rate,
        warmup=warmup,
        ema=ema,
        resolution=own_resolution(model) if resolution is None else resolution,
        cache="" if cache is None else str(cache),
        strict=strict,
        checkpointing=checkpointing,
        compile=compile,
        seed=seed,
    )
    ranges = [
        None if text is None else number_range(option, text)
        for option, text in (("--text-guidance", text_guidance), ("--image-guidance", image_guidance))
    ]
    job = Job(
        model=model,
        data=tuple(data),
        out=out,
        stage=stage,
        recipe=recipe,
        ranges=(ranges[0], ranges[1]),
        walk=Walk(hop=hop),
        device=_device(device),
        resume=resume,
    )
    with progress() as watch:
        figures = distill(job, watch)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps({"out": str(out), **figures}) if as_json else out)
