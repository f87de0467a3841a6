"""What is trained and how: one row of settings, the paper's by default, from a file and from options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import torch

from ip2p_fast.errors import BadInput, MissingExtra

CONFIGS = Path(__file__).parent / "configs"
SCHEDULES = ("constant", "cosine")
PREDICTIONS = ("", "epsilon", "v_prediction")
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Recipe:
    """InstructPix2Pix's training (section 3.2 and appendix A) unless said otherwise.

    Data
    resolution         side of the square crop in pixels; with `buckets`, the square root of the pixel budget
    zoom               the picture is scaled to cover the crop times a number drawn from 1 to this (256 to 288 pixels)
    flip               share of samples that are mirrored; the draws of zoom, crop and mirror are those of the pair
    buckets            crops of several aspect ratios, all of at most resolution^2 pixels; a batch has one
    buffer             records in memory that are shuffled among each other
    lanes              parts that the data is read in at a time; its files are dealt to them anew each epoch
    held_out           share of the records that is for validation alone
    strict             stop at the first broken record or file in place of naming and skipping it
    cache              folder of latents and texts encoded once; crops are then the middle, without zoom and mirroring
    workers            threads that decode pictures

    Loss
    dropout            share of samples that lose their text, as many that lose both conditions, and their image alone
    prediction         "epsilon" or "v_prediction"; empty: what the model's scheduler says
    min_snr            gamma of min-SNR weighting (Hang et al. 2023); 0 weighs all timesteps alike
    sampled_latents    targets are drawn from the autoencoder's posterior in place of its mode; not with `cache`

    Optimization
    steps              of the optimizer
    batch, accumulation  samples of one process at a time, and how many such batches make a step
    learning_rate, warmup, schedule  constant or cosine to zero, after so many steps of linear warm-up
    weight_decay, beta1, beta2, clip  AdamW; clip is the largest norm of the gradient, 0 for no limit
    ema                decay of the average is min(ema, (1 + n) / (10 + n)) at step n
    adam8bit           AdamW's moments in 8 bits (bitsandbytes)
    lora               rank of low-rank adapters in place of training all weights; 0 for none
    precision          no, bf16 or fp16: mixed precision
    checkpointing      activations are computed again in the backward pass in place of being kept
    compile            torch.compile the UNet
    seed               everything random of a sample derives from this and its place in the stream

    Watching
    save_every, keep   steps between checkpoints, and how many are kept
    validate_every, validation  steps between validations, and on how many held-out records
    sample_every, samples       steps between sheets of edits, and how many held-out records they show
    tracker            "tensorboard", or another of accelerate's; empty for none

    Raises:
        BadInput: a value out of its range.
    """

    resolution: int = 256
    zoom: float = 1.125
    flip: float = 0.5
    buckets: bool = False
    buffer: int = 1000
    lanes: int = 64
    held_out: float = 0.05
    strict: bool = False
    cache: str = ""
    workers: int = 4

    dropout: float = 0.05
    prediction: str = ""
    min_snr: float = 0.0
    sampled_latents: bool = True

    steps: int = 10_000
    batch: int = 32
    accumulation: int = 4
    learning_rate: float = 1e-4
    warmup: int = 0
    schedule: str = "constant"
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 0.0
    ema: float = 0.9999
    adam8bit: bool = False
    lora: int = 0
    precision: str = "no"
    checkpointing: bool = False
    compile: bool = False
    seed: int = 0

    save_every: int = 1000
    keep: int = 2
    validate_every: int = 1000
    validation: int = 64
    sample_every: int = 1000
    samples: int = 8
    tracker: str = ""

    def __post_init__(self) -> None:
        for name in (
            "resolution",
            "buffer",
            "lanes",
            "workers",
            "steps",
            "batch",
            "accumulation",
            "save_every",
            "keep",
        ):
            _require(name, getattr(self, name), 1, 2**31)
        for name in ("warmup", "lora", "validate_every", "validation", "sample_every", "samples"):
            _require(name, getattr(self, name), 0, 2**31)
        _require("seed", self.seed, 0, 2**63 - 1)
        _require("zoom", self.zoom, 1.0, 8.0)
        _require("flip", self.flip, 0.0, 1.0)
        _require("held_out", self.held_out, 0.0, 0.5)
        # three cases exclude each other
        _require("dropout", self.dropout, 0.0, 1 / 3)
        _require("min_snr", self.min_snr, 0.0, 1e6)
        _require("learning_rate", self.learning_rate, 1e-12, 1.0)
        _require("weight_decay", self.weight_decay, 0.0, 1.0)
        for name in ("beta1", "beta2", "ema"):
            _require(name, getattr(self, name), 0.0, 0.9999999)
        _require("clip", self.clip, 0.0, 1e9)
        for name, known in (("schedule", SCHEDULES), ("prediction", PREDICTIONS), ("precision", tuple(DTYPES))):
            if getattr(self, name) not in known:
                choices = ", ".join(repr(choice) for choice in known)
                raise BadInput(f"{name} is {getattr(self, name)!r}: it must be one of {choices}")
        if self.cache and self.buckets:
            raise BadInput("cache and buckets exclude each other: cached latents have one shape")


def recipe_from(config: Path | None, options: Mapping[str, Any]) -> Recipe:
    """The recipe of a TOML file, `options` in place of what it says; the paper's for what neither names.

    Args:
        config: a file, or the name of one that ships here: paper, lora-24gb.

    Raises:
        BadInput: no such file, no TOML, a setting that does not exist, of another type or out of its range.
        MissingExtra: Python 3.10 without tomli.
    """
    named = {} if config is None else _read(config)
    kinds = get_type_hints(Recipe)
    for name, value in named.items():
        if name not in kinds:
            raise BadInput(f"{config}: there is no setting {name!r}; there are {', '.join(sorted(kinds))}")
        if kinds[name] is float and type(value) is int:
            named[name] = float(value)
        elif type(value) is not kinds[name]:
            raise BadInput(f"{config}: {name} is {value!r}, but it is of type {kinds[name].__name__}")
    return Recipe(**{**named, **options})


def differing(ours: Recipe, theirs: Mapping[str, Any]) -> str | None:
    """The first setting, in the order above, that makes another run of the same steps; None when all agree.

    theirs: `asdict` of the other recipe.
    """
    free = {"workers", "save_every", "keep", "validate_every", "validation", "sample_every", "samples", "tracker"}
    free |= {"strict", "cache", "compile", "checkpointing"}
    if ours.schedule == "constant":
        free.add("steps")
    if not ours.buckets:
        # what one step sees is compared as a whole, processes included
        free |= {"batch", "accumulation"}
    mine = asdict(ours)
    if bool(ours.cache) != bool(theirs.get("cache")):
        return "cache"
    return next((name for name in mine if name not in free and mine[name] != theirs.get(name)), None)


def _read(config: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError:
        try:
            import tomli as tomllib  # type: ignore[no-redef]
        except ModuleNotFoundError as error:
            raise MissingExtra("reading a configuration in Python 3.10", "train") from error
    shipped = CONFIGS / f"{config}.toml"
    path = shipped if not config.exists() and shipped.is_file() else config
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        names = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.toml")))
        raise BadInput(f"{config} cannot be read ({error.strerror or error}); shipped ones are {names}") from error
    except ValueError as error:
        raise BadInput(f"{config} is no TOML: {error}") from error


def _require(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # written so that NaN fails too
        raise BadInput(f"{name} is {value}: it must be from {low:g} to {high:g}")


SETTINGS = tuple(field.name for field in fields(Recipe))
