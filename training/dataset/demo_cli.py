"""`ip2p-fast dataset demo`: the whole way from captions to a filtered data set, in the pocket world, in minutes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from .forms.cli import inspect
from .pairs.cli import pairs
from .triplets.cli import triplets

BASE, CLIP, WRITER = "pocket-base", "pocket", "pocket-writer"


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make.")],
    captions: Annotated[int, typer.Option(help="Scenes to begin with.", min=1)] = 24,
    samples: Annotated[int, typer.Option(help="Drawn of a triplet.", min=1)] = 12,
    steps: Annotated[int, typer.Option(min=1)] = 25,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where OUT stopped.")] = False,
) -> None:
    """Captions, triplets by a language model, pairs by Prompt-to-Prompt, CLIP's choice, a contact sheet.

    Each step is told as the command that does it.
    """
    source, written, shards = out / "captions.txt", out / "triplets.jsonl", out / "pairs"
    if not source.exists():
        out.mkdir(parents=True, exist_ok=True)
        source.write_text("".join(f"{caption}\n" for caption in _captions(captions, seed)), encoding="utf-8")
    again = ["--resume"] if resume else []

    _tell(["triplets", source, "-o", written, "--writer", "transformers", "--model", WRITER, *again])
    triplets(str(source), written, "transformers", model=WRITER, seed=seed, resume=resume)
    options = ["--base", BASE, "--clip", CLIP, "--samples", samples, "--steps", steps]
    _tell(["pairs", written, "-o", shards, *options, *again])
    pairs(written, shards, BASE, clip=CLIP, samples=samples, steps=steps, seed=seed, resume=resume)
    _tell(["inspect", shards, "-o", out])
    inspect(str(shards), out)


def _captions(count: int, seed: int) -> list[str]:
    from ..pocket.paper_data import scene_caption

    return [scene_caption(i, seed) for i in range(count)]


def _tell(command: list[object]) -> None:
    print("$ ip2p-fast dataset " + shlex.join(map(str, command)), file=sys.stderr, flush=True)
