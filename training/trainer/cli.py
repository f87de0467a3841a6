"""`ip2p-fast train MODEL` and `ip2p-fast train plan`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ip2p_fast.errors import BadInput

_JSON = typer.Option("--json", help="Print one JSON object and nothing else.")


def _option(help: str) -> Any:
    """Of a setting of `Recipe`; where it is not given the configuration's holds."""
    return typer.Option(help=help, show_default=False)


def train_model(
    model: Annotated[str, typer.Argument(help="A folder in Hugging Face layout, a hub id, pocket or pocket-base.")],
    data: Annotated[
        list[str], typer.Option("--data", help="Pairs in any form of `ip2p-fast dataset`; may be given several times.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the model; the run is in its training/.")],
    config: Annotated[
        Path | None, typer.Option(help="A .toml of settings, or paper or lora-24gb.", show_default="the paper's")
    ] = None,
    resume: Annotated[str, typer.Option(help="auto, or the folder of a checkpoint.", show_default=False)] = "",
    resolution: Annotated[int | None, _option("Side of the crop in pixels.")] = None,
    zoom: Annotated[float | None, _option("Crops are of pictures up to so many times as large.")] = None,
    flip: Annotated[float | None, _option("Share that is mirrored.")] = None,
    buckets: Annotated[bool | None, _option("Crops of several aspect ratios, one a batch.")] = None,
    buffer: Annotated[int | None, _option("Records that are shuffled among each other.")] = None,
    lanes: Annotated[int | None, _option("Files read at a time.")] = None,
    held_out: Annotated[float | None, _option("Share of the records for validation.")] = None,
    strict: Annotated[bool | None, _option("Stop at the first broken record or file.")] = None,
    cache: Annotated[str | None, _option("Folder of latents and texts encoded once.")] = None,
    workers: Annotated[int | None, _option("Threads that decode pictures.")] = None,
    dropout: Annotated[float | None, _option("Share that loses text, both, or image: each.")] = None,
    prediction: Annotated[str | None, _option("epsilon or v_prediction.")] = None,
    min_snr: Annotated[float | None, _option("Gamma of min-SNR weighting; 0 for none.")] = None,
    sampled_latents: Annotated[bool | None, _option("Targets drawn from the posterior.")] = None,
    steps: Annotated[int | None, _option("Of the optimizer.")] = None,
    batch: Annotated[int | None, _option("Samples of one process at a time.")] = None,
    accumulation: Annotated[int | None, _option("Batches that make a step.")] = None,
    learning_rate: Annotated[float | None, _option("Of AdamW.")] = None,
    warmup: Annotated[int | None, _option("Steps.")] = None,
    schedule: Annotated[str | None, _option("constant or cosine.")] = None,
    weight_decay: Annotated[float | None, _option("Of AdamW.")] = None,
    beta1: Annotated[float | None, _option("Of AdamW.")] = None,
    beta2: Annotated[float | None, _option("Of AdamW.")] = None,
    clip: Annotated[float | None, _option("Largest norm of the gradient; 0 for no limit.")] = None,
    ema: Annotated[float | None, _option("Largest decay of the weights' average.")] = None,
    adam8bit: Annotated[bool | None, _option("AdamW in 8 bits, by bitsandbytes.")] = None,
    lora: Annotated[int | None, _option("Rank of adapters; 0 trains all weights.")] = None,
    precision: Annotated[str | None, _option("no, bf16 or fp16.")] = None,
    checkpointing: Annotated[bool | None, _option("Less memory, a third more time.")] = None,
    compile: Annotated[bool | None, _option("torch.compile the UNet.")] = None,
    seed: Annotated[int | None, _option("Of everything random.")] = None,
    save_every: Annotated[int | None, _option("Steps between checkpoints.")] = None,
    keep: Annotated[int | None, _option("Checkpoints kept.")] = None,
    validate_every: Annotated[int | None, _option("Steps between validations.")] = None,
    validation: Annotated[int | None, _option("Held-out records validated on.")] = None,
    sample_every: Annotated[int | None, _option("Steps between sheets of edits.")] = None,
    samples: Annotated[int | None, _option("Edits on a sheet.")] = None,
    tracker: Annotated[str | None, _option("tensorboard, or another of accelerate's.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Train an edit model on pairs of pictures: `train MODEL`.

    On several GPUs: accelerate launch -m ip2p_fast.cli train MODEL ...
    """
    given = dict(locals())
    from .recipe import SETTINGS, recipe_from

    recipe = recipe_from(config, {name: given[name] for name in SETTINGS if given[name] is not None})

    from transformers.utils import logging

    from ..cli import progress
    from .training import Job, train

    logging.disable_progress_bar()  # of the seconds that a text encoder takes to write

    with progress() as watch:
        figures = train(Job(model, tuple(data), out, recipe, resume), watch)
    if os.environ.get("RANK", "0") == "0":
        _print({"out": str(out), **figures}, as_json)


def _print(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:28} {value:.4g}" if isinstance(value, float) else f"{name:28} {value}")


def plan(
    model: Annotated[str, typer.Argument(help="sd15, or as of `train MODEL`.")] = "sd15",
    config: Annotated[
        Path | None, typer.Option(help="A .toml of settings, or paper or lora-24gb.", show_default="the paper's")
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", "--devices", help="That train together.")] = 8,
    peak_tflops: Annotated[float | None, typer.Option(help="Of a device, in the configuration's precision.")] = None,
    utilization: Annotated[float | None, typer.Option(help="Share of the peak that training reaches.")] = None,
    measure: Annotated[int | None, typer.Option(help="Take so many steps here and use the share they reach.")] = None,
    price: Annotated[float | None, typer.Option(help="Of a device-hour.")] = None,
    fsdp: Annotated[bool, typer.Option("--fsdp", help="The trained weights are divided among the devices.")] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Time, cost and memory of a training before it is begun.

    From the share of a device's peak that training reaches: measured here (--measure), or assumed (--utilization). With
    --measure and no --peak-tflops the devices are as fast as this one.
    """
    from dataclasses import asdict

    from .recipe import recipe_from

    if (utilization is None) == (measure is None):
        raise BadInput("give one of --utilization and --measure: the share of a device's peak, or steps to measure it")
    if measure is None and peak_tflops is None:
        raise BadInput("--utilization needs --peak-tflops: a share of what a device can do")
    if utilization is not None and not 0 < utilization <= 1:
        raise BadInput(f"--utilization is {utilization}: it must be above 0 and at most 1")
    recipe = recipe_from(config, {})
    from . import plan as planning

    sizes = planning.sizes_of(model, recipe)
    measured = None if measure is None else planning.measure(model, recipe, measure)
    share, peak = (utilization or 0.0, 0.0) if measured is None else (measured.utilization, measured.peak)
    if peak_tflops is not None:
        peak = peak_tflops * 1e12
    found = planning.plan_of(recipe, sizes, gpus, peak * share, price, fsdp)
    if as_json:
        told = {"measured": None if measured is None else asdict(measured), "sizes": asdict(sizes)}
        print(json.dumps({**asdict(found), **told}))
        return
    from ..dataset.plan.plan_document import count, duration, size

    lines = {
        "samples": f"{count(found.samples)} ({recipe.steps:,} steps)",
        "a sample is": f"{found.tflop_per_sample:.3g} TFLOP",
        "wall-clock": duration(found.seconds),
        "device-hours": f"{found.device_hours:,.1f}",
        "cost": None if found.cost is None else f"{found.cost:,.2f}",
        "trained weights": f"{sizes.trained:,}",
        "memory of the weights": f"{size(found.weight_bytes)} a device, activations to be added",
        "share of the peak": f"{share:.1%} of {peak / 1e12:.3g} TFLOP/s",
    }
    if measured is not None:
        taken, peak_memory = measured.seconds_per_sample, size(measured.peak_memory)
        lines["measured"] = f"{taken:.3g} s a sample on {measured.device}, {peak_memory} at the most"
    for name, text in lines.items():
        if text is not None:
            print(f"  {name:24} {text}")
