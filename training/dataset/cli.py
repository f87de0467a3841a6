"""`ip2p-fast dataset`: make the data that InstructPix2Pix is trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ip2p_fast.errors import BadInput

from ..cli import progress

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)
WRITERS = ("grammar", "transformers")


@app.callback()
def _dataset() -> None:
    """Make training data: triplets of caption, instruction and edited caption."""


@app.command("triplets")
def triplets(
    source: Annotated[str, typer.Argument(help="Captions: .txt, .jsonl, .csv, .parquet, or hub-data-set[:split].")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON lines with caption, edit, output.")],
    writer: Annotated[str, typer.Option(help="grammar (the pocket world's) or transformers (a language model).")],
    model: Annotated[str | None, typer.Option(help="The language model: a folder or a hub id.")] = None,
    column: Annotated[str, typer.Option(help="Where a source of several columns has the caption.")] = "caption",
    url_column: Annotated[str, typer.Option(help="Where it has the picture's address.")] = "url",
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)] = 0,
    batch: Annotated[int, typer.Option(help="Captions written to at once.", min=1)] = 16,
    retries: Annotated[int, typer.Option(help="Further tries when what is written is no triplet.", min=0)] = 3,
    temperature: Annotated[float, typer.Option(help="Of the language model.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Of the language model.")] = 1.0,
    frequency_penalty: Annotated[float, typer.Option(help="Of the language model.")] = 0.1,
    max_tokens: Annotated[int, typer.Option(help="Of one completion.")] = 256,
    longest: Annotated[int, typer.Option(help="Characters of a caption; longer ones are left out.", min=1)] = 400,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a line that cannot be read.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where OUT stopped.")] = False,
    device: Annotated[str, typer.Option(help="Of the language model.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Have an instruction and an edited caption written to each caption, and say what became of every one."""
    from .captions import read_captions
    from .journal import Journal
    from .triplets import Rules, write_triplets
    from .writers import GrammarWriter, Sampling, TransformersWriter, Writer

    if writer not in WRITERS:
        raise BadInput(f"there is no writer {writer!r}: choose one of {', '.join(WRITERS)}")
    if (model is None) == (writer == "transformers"):
        raise BadInput("--model names the language model of --writer transformers, and of no other")
    sampling = Sampling(temperature, top_p, frequency_penalty, max_tokens)
    captions = read_captions(source, column, url_column)
    settings = {
        "source": source,
        "column": column,
        "url_column": url_column,
        "writer": writer,
        "seed": seed,
        "retries": retries,
        "longest": longest,
        **({"model": model, **vars(sampling)} if writer == "transformers" else {}),
    }
    with Journal(out, settings, resume) as journal, progress() as watch:
        chosen: Writer = GrammarWriter() if model is None else TransformersWriter(model, sampling, device)
        rules = Rules(longest, retries, strict)
        counts = write_triplets(
            captions, chosen, journal, rules, seed, batch, lambda used: watch("triplets", 0.0, f"{used} captions")
        )
    if as_json:
        print(json.dumps({"captions": journal.inputs, **counts}))
        return
    print(f"{out}: {counts.get('written', 0)} triplets of {journal.inputs} captions")
    for outcome, count in sorted(counts.items()):
        if count and outcome != "written":
            print(f"  {outcome:20} {count}")
