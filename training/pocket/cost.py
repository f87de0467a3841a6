"""Quality against cost: what edits of the pocket world are worth under every way to make them cheaper."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ip2p_fast import Editor, EditRequest
from ip2p_fast.benchmarks.timing import Spread, interleave
from ip2p_fast.checkpoints import load
from ip2p_fast.editor import EditResult
from ip2p_fast.errors import BadInput
from ip2p_fast.unet import UNet

from .data import Pairs, draw_pairs
from .evaluate import asked, edit_pairs, verdicts
from .reader import Reader, load_reader
from .vae import psnr

Watch = Callable[[str, float, str], None]
STUDENT_STEPS = (8, 4, 2, 1)


@dataclass(frozen=True)
class Variant:
    """One way to edit: fields of EditRequest, and the folder of a model other than the one that is measured.

    name: words with underscores. label: as figure and table have it. family: variants of one colour.
    """

    name: str
    label: str
    family: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Path | None = None


def _steps(sampler: str) -> tuple[Variant, ...]:
    return tuple(
        Variant(f"{sampler}_{steps}", f"{sampler} {steps}", sampler, {"sampler": sampler, "steps": steps})
        for steps in (20, 10, 8, 4)
    )


def _saving(name: str, label: str, family: str, steps: int = 20, sampler: str = "euler_a", **settings: Any) -> Variant:
    return Variant(name, label, family, {"sampler": sampler, "steps": steps, **settings})


VARIANTS = (
    *_steps("euler_a"),
    *_steps("dpmpp_2m"),
    *_steps("lcm"),
    _saving("interval_0_50", "interval 0:0.5", "guidance interval", guidance_interval=(0.0, 0.5)),
    _saving("interval_0_80", "interval 0:0.8", "guidance interval", guidance_interval=(0.0, 0.8)),
    _saving("interval_20_80", "interval 0.2:0.8", "guidance interval", guidance_interval=(0.2, 0.8)),
    _saving("interval_20_100", "interval 0.2:1", "guidance interval", guidance_interval=(0.2, 1.0)),
    _saving("guidance_2", "guidance 2", "guidance refresh", guidance_refresh=2),
    _saving("guidance_3", "guidance 3", "guidance refresh", guidance_refresh=3),
    _saving("guidance_4", "guidance 4", "guidance refresh", guidance_refresh=4),
    _saving("deep_2", "deep 2", "deep refresh", deep_refresh=2),
    _saving("deep_3", "deep 3", "deep refresh", deep_refresh=3),
    _saving("guidance_2_deep_2", "guidance 2, deep 2", "together", guidance_refresh=2, deep_refresh=2),
    _saving("guidance_4_deep_3", "guidance 4, deep 3", "together", guidance_refresh=4, deep_refresh=3),
    _saving("euler_a_10_guidance_2", "euler_a 10, guidance 2", "together", steps=10, guidance_refresh=2),
    _saving("euler_a_10_deep_2", "euler_a 10, deep 2", "together", steps=10, deep_refresh=2),
    _saving("dpmpp_2m_8_guidance_2", "dpmpp_2m 8, guidance 2", "together", 8, "dpmpp_2m", guidance_refresh=2),
    _saving(
        "dpmpp_2m_8_guidance_2_deep_2",
        "dpmpp_2m 8, guidance 2, deep 2",
        "together",
        8,
        "dpmpp_2m",
        guidance_refresh=2,
        deep_refresh=2,
    ),
)
"""The first is what the others are compared with. Savings are those of 20 steps of euler_a where nothing is said."""


@dataclass(frozen=True)
class Measured:
    """A variant over N edits.

    success, kept: bool [N], the reader's verdicts. psnr_db: mean, to the ground truth.
    row_evaluations, shallow_evaluations: of one edit (`EditResult`). rows: both as one cost, a shallow row counted as
    its share of a whole one's FLOPs. milliseconds: of one edit alone, picture to picture, on `backend`.
    """

    variant: Variant
    success: np.ndarray
    kept: np.ndarray
    psnr_db: float
    row_evaluations: int
    shallow_evaluations: int
    rows: float
    milliseconds: Spread
    backend: str


def student_variants(students: Sequence[str]) -> tuple[Variant, ...]:
    """Variants of distilled models, each given as NAME=FOLDER, at STUDENT_STEPS; all else is the model's default.

    Raises:
        BadInput: another form, a name twice or that of a family of VARIANTS, or no such folder.
    """
    variants: list[Variant] = []
    for given in students:
        name, _, folder = given.partition("=")
        if not re.fullmatch(r"[a-z0-9_]+", name) or not folder:
            raise BadInput(f"--student is {given!r}: NAME=FOLDER is needed, the name of a to z, 0 to 9 and _")
        if not Path(folder).is_dir():
            raise BadInput(f"--student {given}: there is no folder {folder}")
        if any(variant.family == name for variant in (*VARIANTS, *variants)):
            raise BadInput(f"--student {given}: the name {name} is given twice")
        variants += [
            Variant(f"{name}_{steps}", f"{name} {steps}", name, {"steps": steps}, Path(folder))
            for steps in STUDENT_STEPS
        ]
    return tuple(variants)


def measure_cost(
    model: str, variants: Sequence[Variant], limit: int, rounds: int, work: Path, watch: Watch
) -> list[Measured]:
    """Edits the first `limit` held-out scenes under every variant, and times one edit alone under each, in turns.

    Verdicts go to a file a variant in `work`, and are taken from there while model, settings and limit are the same; so
    a run that was cut off goes on. Times are measured anew.

    Raises:
        BadInput: the model is no pocket model with a reader, or a variant's settings are wrong.
    """
    folders = {variant.model: str(variant.model or model) for variant in variants}
    editors = {place: Editor.from_pretrained(folder, backend="torch") for place, folder in folders.items()}
    shares = {place: shallow_share(folder) for place, folder in folders.items()}
    reader = load_reader(Path(editors[None].model_path) / "reader")
    pairs = draw_pairs("held-out", limit, reader.pixels)
    judged = []
    for done, variant in enumerate(variants):
        watch("edits", done / len(variants), variant.label)
        judged.append(_judged(editors[variant.model], reader, pairs, variant, work))
    results: dict[str, EditResult] = {}

    def edit_alone(variant: Variant) -> None:
        request = EditRequest(pairs.pixels[0, 0], asked(pairs, 0), seed=0, **variant.settings)
        results[variant.name] = editors[variant.model].edit_many([request])[0]

    timings = interleave(
        {variant.name: partial(edit_alone, variant) for variant in variants},
        rounds,
        watch=lambda done, total: watch("times", done / total, f"round {done} of {total}"),
    )
    return [
        Measured(
            variant=variant,
            success=success,
            kept=kept,
            psnr_db=psnr_db,
            row_evaluations=(result := results[variant.name]).row_evaluations,
            shallow_evaluations=result.shallow_evaluations,
            rows=result.row_evaluations + shares[variant.model] * result.shallow_evaluations,
            milliseconds=Spread.of([1000 * seconds for seconds in timings[variant.name].seconds]),
            backend=_described(editors[variant.model]),
        )
        for variant, (success, kept, psnr_db) in zip(variants, judged, strict=True)
    ]


def shallow_share(model: str) -> float:
    """FLOPs of a row that takes its deep features from an earlier step, as a share of a whole row's."""
    checkpoint = load(model)
    unet = UNet.load(checkpoint.unet_config, checkpoint.unet_state).float()
    side = checkpoint.unet_config["sample_size"]
    latents, timesteps = torch.zeros(1, unet.config.in_channels, side, side), torch.zeros(1)
    scales = torch.ones(1, 2)
    # attention as plain products, which the counter knows on every device
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        text = unet.text_keys_values(torch.zeros(1, 77, unet.config.context_dim))
        with FlopCounterMode(display=False) as whole:
            _, deep = unet.with_deep(latents, timesteps, text, scales=scales)
        with FlopCounterMode(display=False) as shallow:
            unet.with_deep(latents, timesteps, text, scales=scales, deep=deep)
    return shallow.get_total_flops() / whole.get_total_flops()


def _described(editor: Editor) -> str:
    backend = editor.backend
    return f"{backend.name} backend in {backend.dtype} on {backend.device}, {torch.get_num_threads()} threads"


def _judged(
    editor: Editor, reader: Reader, pairs: Pairs, variant: Variant, work: Path
) -> tuple[np.ndarray, np.ndarray, float]:
    """success [N], kept [N] and the mean PSNR, of a file in `work` or measured and written there."""
    weights = Path(editor.model_path) / "unet" / "diffusion_pytorch_model.safetensors"
    of = {
        "unet": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "settings": json.loads(json.dumps(dict(variant.settings))),
        "edits": len(pairs),
        "dtype": editor.backend.dtype,
    }
    place = work / f"{variant.name}.json"
    if place.is_file() and (known := json.loads(place.read_text(encoding="utf-8")))["of"] == of:
        return np.array(known["success"], bool), np.array(known["kept"], bool), known["psnr_db"]
    pictures = edit_pairs(editor, pairs, range(len(pairs)), variant.settings)
    edited = np.stack([np.asarray(picture) for picture in pictures])
    found = verdicts(reader, pairs, edited)
    psnr_db = float(psnr(pairs.pixels[:, 1], edited).mean())
    work.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(".partial")
    content = {"of": of, "success": found.success.tolist(), "kept": found.kept.tolist(), "psnr_db": psnr_db}
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(place)
    return found.success, found.kept, psnr_db
