"""`ip2p-fast dataset triplets` and `finetune-writer`: captions to triplets, and a language model that writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ip2p_fast.errors import BadInput

from ...cli import progress

WRITERS = ("grammar", "transformers", "openai")

_JSON = typer.Option("--json", help="Print one JSON object and nothing else.")


def triplets(
    source: Annotated[str, typer.Argument(help="Captions: .txt, .jsonl, .csv, .parquet, or hub-data-set[:split].")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON lines with caption, edit, output.")],
    writer: Annotated[
        str,
        typer.Option(help="grammar (the pocket world's), transformers or openai (a language model here or served)."),
    ],
    model: Annotated[
        str | None, typer.Option(help="The language model: a folder, a hub id, pocket-writer, or the endpoint's name.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Of --writer openai: its address, such as http://127.0.0.1:8000/v1.")
    ] = None,
    api: Annotated[str, typer.Option(help="Of the endpoint: completions (finetuned models) or chat.")] = "completions",
    system: Annotated[
        Path | None,
        typer.Option(
            help="With --api chat: a file with the instructions to give; empty for none.", show_default="ours"
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that an endpoint has for one answer.")] = 60.0,
    reconnects: Annotated[
        int, typer.Option(help="Further tries, at growing intervals, when an endpoint fails.", min=0)
    ] = 5,
    rate: Annotated[
        float | None, typer.Option(help="Requests a minute to the endpoint at most.", show_default="no limit")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Requests to the endpoint at a time.", min=1)] = 4,
    moderation: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible moderations endpoint to show every triplet to.")
    ] = None,
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
    device: Annotated[str, typer.Option(help="Of --writer transformers.")] = "cpu",
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Have an instruction and an edited caption written to each caption, and say what became of every one."""
    from .captions import read_captions
    from .endpoint import Endpoint, Pace
    from .journal import Journal
    from .openai_moderation import moderator_at
    from .openai_writer import OpenAIWriter, system_text
    from .writers import GrammarWriter, Sampling, TransformersWriter, Writer
    from .writing import Rules, write_triplets

    _check_writer(writer, model, endpoint, system)
    sampling = Sampling(temperature, top_p, frequency_penalty, max_tokens)
    pace = Pace(timeout, reconnects, rate)
    settings: dict[str, Any] = {
        "source": source,
        "column": column,
        "url_column": url_column,
        "writer": writer,
        "seed": seed,
        "retries": retries,
        "longest": longest,
    }
    if writer != "grammar":
        settings |= {"model": model, **vars(sampling)}
    if moderation is not None:
        settings["moderation"] = moderation

    chosen: Writer
    if endpoint is not None and model is not None:
        # where it is served, and how fast, does not change what is written
        told = system_text(api, system)
        settings |= {"api": api, "system": told}
        chosen = OpenAIWriter(Endpoint(endpoint, pace), model, sampling, api, told, concurrency)
    elif model is not None:
        chosen = TransformersWriter(model, sampling, device)
    else:
        chosen = GrammarWriter()
    rules = Rules(longest, retries, strict, moderator_at(moderation, pace) if moderation is not None else None)
    captions = read_captions(source, column, url_column)
    with Journal(out, settings, resume) as journal, progress() as watch:
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


def finetune_writer(
    written: Annotated[Path, typer.Argument(help="JSON lines with caption, edit, output, written by people.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The finetuned model: a Hugging Face folder.")],
    model: Annotated[str, typer.Option(help="A causal language model: a folder or a hub id.")],
    epochs: Annotated[float, typer.Option(help="Times that every triplet is seen.")] = 1.0,
    batch: Annotated[int, typer.Option(help="Triplets a step.", min=1)] = 8,
    learning_rate: Annotated[float, typer.Option(help="At the start; it falls to zero in a line.")] = 5e-5,
    lora_rank: Annotated[
        int | None, typer.Option(help="Train low-rank updates in place of all weights.", min=1, show_default="all")
    ] = None,
    held_out: Annotated[float, typer.Option(help="Share of the triplets that is measured, not trained on.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of order, dropout and the measured answers.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Finetune a language model on triplets written by people, and measure it on those held out."""
    from .written import read_triplets

    triplets = read_triplets(written)
    from .finetune_writer import Finetuning
    from .finetune_writer import finetune_writer as finetune

    settings = Finetuning(epochs, batch, learning_rate, held_out, lora_rank, seed, device)
    with progress() as watch:
        report = finetune(
            triplets,
            model,
            out,
            settings,
            lambda step, steps: watch("finetune", step / steps, f"step {step} of {steps}"),
        )
    if as_json:
        print(json.dumps(vars(report)))
        return
    print(f"{out}: trained on {report.trained} triplets")
    if report.held_out:
        print(f"  {'held out':20} {report.held_out}")
        print(f"  {'perplexity':20} {report.perplexity:.4g}")
        print(f"  {'valid':20} {report.valid:.1%}")


def _check_writer(writer: str, model: str | None, endpoint: str | None, system: Path | None) -> None:
    """Raises BadInput: options that do not belong together."""
    if writer not in WRITERS:
        raise BadInput(f"there is no writer {writer!r}: choose one of {', '.join(WRITERS)}")
    if (model is None) == (writer != "grammar"):
        raise BadInput("--model names the language model of --writer transformers or openai, and of no other")
    if (endpoint is None) == (writer == "openai"):
        raise BadInput("--endpoint is the address of --writer openai, and of no other")
    if system is not None and writer != "openai":
        raise BadInput("--system is for --writer openai with --api chat")
