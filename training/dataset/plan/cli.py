"""`ip2p-fast dataset plan`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ip2p_fast.errors import BadInput

from ..options import picture_size

if TYPE_CHECKING:
    from .plan import Costs, Job, Made
    from .plan_measure import Measured

_JSON = typer.Option("--json", help="Print one JSON object and nothing else.")
_TIME, _MEASURING = "Seconds of a sample: one of these three", "Measuring"
_MB = 1e6


def plan(
    pairs: Annotated[int | None, typer.Option(help="To be kept.")] = None,
    triplets: Annotated[int | None, typer.Option(help="To be drawn from, in place of --pairs.")] = None,
    kept: Annotated[float | None, typer.Option(help="Pairs kept of a triplet, the mean.")] = None,
    like: Annotated[
        Path | None, typer.Option(help="A set that `dataset pairs` made: pairs kept, bytes, samples and steps.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Drawn of a triplet.", show_default="LIKE's, else 100")] = None,
    steps: Annotated[int | None, typer.Option(show_default="LIKE's, else 100")] = None,
    devices: Annotated[int, typer.Option("--devices", "--gpus", "--workers", help="That draw.")] = 1,
    outputs: Annotated[int, typer.Option(help="Ranges of the triplets, each written by its own process.")] = 1,
    per_shard: Annotated[int, typer.Option(help="Records of a shard.")] = 1000,
    price: Annotated[float | None, typer.Option(help="Of a device-hour.")] = None,
    write_rate: Annotated[
        float | None, typer.Option(help="MB/s that all outputs together can write.", show_default="no limit")
    ] = None,
    hours_to_loss: Annotated[
        float | None, typer.Option(help="Mean hours until a device is lost.", show_default="never")
    ] = None,
    bytes_per_pair: Annotated[
        float | None, typer.Option(help="In its shard.", show_default="LIKE's, else as measured")
    ] = None,
    seconds_per_triplet: Annotated[float, typer.Option(help="Of the language model, on one device.")] = 0.0,
    clip_seconds: Annotated[float, typer.Option(help="Of CLIP, a sample; with --tflops.")] = 0.0,
    seconds_per_sample: Annotated[
        float | None, typer.Option(help="Drawing and CLIP, as measured by you.", rich_help_panel=_TIME)
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(help="TFLOP/s that a device sustains; with --tflop-per-row.", rich_help_panel=_TIME)
    ] = None,
    tflop_per_row: Annotated[
        float | None, typer.Option(help="TFLOP of one UNet row; 4 rows a step.", rich_help_panel=_TIME)
    ] = None,
    measure: Annotated[
        int | None, typer.Option(help="Draw so many samples now, and time the parts.", rich_help_panel=_TIME)
    ] = None,
    base: Annotated[str, typer.Option(help="As of `dataset pairs`.", rich_help_panel=_MEASURING)] = "pocket-base",
    clip: Annotated[str, typer.Option(help="As of `dataset pairs`.", rich_help_panel=_MEASURING)] = "pocket",
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT.", show_default="the model's", rich_help_panel=_MEASURING)
    ] = None,
    at_once: Annotated[int, typer.Option(help="Pairs in flight.", rich_help_panel=_MEASURING)] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=_MEASURING)] = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16 or float16.", rich_help_panel=_MEASURING)
    ] = "auto",
    on: Annotated[
        Path,
        typer.Option(help="A folder on the set's disk: writing is timed.", rich_help_panel=_MEASURING),
    ] = Path("."),
    record: Annotated[
        Path | None, typer.Option(help="The results file: written by --measure, else read for --document.")
    ] = None,
    document: Annotated[Path | None, typer.Option(help="Redraw the tables of this document.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """What a set of pairs costs before it is made: time, money and disk.

    With --document alone its tables are drawn again.
    """
    from .plan import Costs, Job, plan_of, read_made, require_positive, seconds_from_arithmetic, triplets_for
    from .plan_document import RESULTS, described, draw_tables
    from .plan_document import record as write_record

    sources = {
        "--seconds-per-sample": seconds_per_sample,
        "--tflops": tflops if tflops is not None else tflop_per_row,
        "--measure": measure,
    }
    given = [name for name, value in sources.items() if value is not None]
    drawn_from = record or (RESULTS if RESULTS.exists() else None)
    if document is not None and not given and pairs is triplets is kept is like is None:
        draw_tables(document, drawn_from)
        print(document)
        return
    if len(given) != 1:
        raise BadInput(
            f"the seconds of a sample come from {' and '.join(given) or 'nowhere'}: give one of --seconds-per-sample, "
            "--measure, or --tflops with --tflop-per-row"
        )
    if (tflops is None) != (tflop_per_row is None):
        raise BadInput("--tflops and --tflop-per-row belong together: a rate, and how much a row of the UNet is")
    if clip_seconds and tflops is None:
        raise BadInput(f"--clip-seconds belongs to --tflops: {given[0]} has CLIP's time in it")
    if (pairs is None) == (triplets is None):
        raise BadInput("give one of --pairs and --triplets: how many pairs are wanted, or how many triplets there are")
    if (kept is None) == (like is None):
        raise BadInput("give one of --kept and --like: pairs kept of a triplet, or a set that tells")
    if record is not None and measure is None:
        raise BadInput("--record belongs to --measure, or to --document alone")
    require_positive("--write-rate", write_rate)

    made = None if like is None else read_made(like)
    samples = _as_made("--samples", samples, None if made is None else made.samples)
    steps = _as_made("--steps", steps, None if made is None else made.steps)
    share = kept if made is None else made.kept
    assert share is not None
    job = Job(
        triplets=triplets if triplets is not None else triplets_for(pairs or 0, share),
        kept=share,
        samples=samples,
        steps=steps,
        devices=devices,
        outputs=outputs,
        per_shard=per_shard,
        price=price,
        write_rate=None if write_rate is None else write_rate * _MB,
        hours_to_loss=hours_to_loss,
    )
    measured = None
    if measure is not None:
        measured = _measured(job, measure, base, clip, size, at_once, device, dtype, on, seconds_per_triplet)
        costs = measured.costs
    elif tflops is not None and tflop_per_row is not None:
        drawing = seconds_from_arithmetic(steps, tflop_per_row, tflops)
        costs = Costs(drawing, clip_seconds, language=seconds_per_triplet)
    else:
        costs = Costs(seconds_per_sample or 0.0, language=seconds_per_triplet)
    if bytes_per_pair is None and made is not None:
        bytes_per_pair = made.bytes_per_pair
    if bytes_per_pair is not None:
        costs = replace(costs, bytes_per_pair=bytes_per_pair)
    found = plan_of(job, costs)
    if measured is not None and record is not None:
        write_record(record, measured, job, base, clip)
    if document is not None:
        draw_tables(document, drawn_from)
    if as_json:
        print(json.dumps({**asdict(found), "device_hours": found.device_hours, **_told(job, costs, made, measured)}))
        return
    for name, text in {**_heard(costs, made, measured), **described(job, found)}.items():
        print(f"  {name:30} {text}")


def _as_made(option: str, given: int | None, made: int | None) -> int:
    """What was given, else what a set was made with, else 100.

    Raises:
        BadInput: the two differ; what is kept of other samples is another share.
    """
    if given is not None and made is not None and given != made:
        raise BadInput(f"{option} is {given}, but the set of --like was made with {made}: its kept share is of those")
    return given if given is not None else made if made is not None else 100


def _measured(
    job: Job,
    count: int,
    base: str,
    clip: str,
    size: str | None,
    at_once: int,
    device: str,
    dtype: str,
    on: Path,
    language: float,
) -> Measured:
    from ..pairs.generator import Drawing
    from .plan_measure import measure

    drawing = Drawing(job.steps, size=None if size is None else picture_size(size), at_once=at_once)
    return measure(base, clip, drawing, count, device, dtype, on, language)


def _told(job: Job, costs: Costs, made: Made | None, measured: Measured | None) -> dict[str, object]:
    """What a plan was made from, for --json."""
    told: dict[str, object] = {"job": asdict(job), "costs": asdict(costs)}
    if made is not None:
        told["like"] = asdict(made)
    if measured is not None:
        told["peak_memory"] = measured.peak_memory
    return told


def _heard(costs: Costs, made: Made | None, measured: Measured | None) -> dict[str, str]:
    """The same to read."""
    from .plan_document import duration, size

    lines = {"a sample takes": f"{duration(costs.drawing)}, and CLIP {duration(costs.clip)}"}
    if costs.bytes_per_pair is not None:
        lines["a pair has"] = size(costs.bytes_per_pair)
    if measured is not None:
        lines["measured"] = f"{measured.samples} samples on {measured.device}, {size(measured.peak_memory)} at the most"
    if made is not None:
        lines["triplets without a pair"] = f"{made.without_a_pair:.1%}"
        lines |= {f"samples dropped, {cause}": f"{share:.1%}" for cause, share in made.dropped.items()}
    return lines
