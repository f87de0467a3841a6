"""The pocket model by the paper's route: a writer, Prompt-to-Prompt pairs, CLIP's choice, training from text-to-image.

Nothing of it sees a rendered picture; what it is worth, the world's own judge says (`ip2p-fast evaluate pocket`). The
ablations of the data (InstructPix2Pix, figure 10) are the same training on parts of the same pairs, equally long.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from ..dataset.forms.formats import read_pairs
from ..trainer.parts import grow
from .data import draw_pairs
from .pair_audit import audit
from .paper_data import Advance, draw_paper_pairs, paper_latents, sources_of, write_scene_triplets
from .parallel import rank, world
from .publish import base_folder, publish_beside, text_tower
from .reader import load_reader
from .sizes import Stage
from .stages import Route, Work, load_clip, load_latents, load_unet, load_vae
from .unet import Latents, diffusion_loss, fit, prepare_latents

ABLATIONS = {"full": 1.0, "tenth": 0.1, "hundredth": 0.01, "unfiltered": 1.0}
"""Shares of the pairs that the models of figure 10 are trained on; the last one's pairs CLIP has not chosen."""


def trained_folder(work: Work, name: str) -> Path:
    """Where a model of this route is published: `paper`, `control`, or one of ABLATIONS."""
    return work.runs / f"{work.size.name}-{name}-model"


def shares(data: Latents, unfiltered: Latents) -> Iterator[tuple[str, Latents]]:
    """What each of ABLATIONS is trained on: the first pairs of a set, at least one."""
    for name, share in ABLATIONS.items():
        whole = unfiltered if name == "unfiltered" else data
        count = max(1, round(share * len(whole.latents)))
        yield name, Latents(whole.latents[:count], whole.contexts, whole.texts[:count], whole.scale)


def _triplets(work: Work) -> dict[str, float]:
    count, writer = work.size.paper_data.captions, sources_of(work.model).writer
    counts = write_scene_triplets(_triplets_file(work), count, writer, work.device, _watch(work, "triplets"))
    return {"triplets": float(counts.get("written", 0))}


def _pairs(work: Work) -> dict[str, float]:
    return _draw(work, "pairs", filtered=True)


def _unfiltered(work: Work) -> dict[str, float]:
    return _draw(work, "unfiltered", filtered=False)


def _draw(work: Work, name: str, filtered: bool) -> dict[str, float]:
    """Draws the pairs, encodes them once for all trainings on them, and has the reader say what they show."""
    out, data, sources = work.runs / f"{work.size.name}-{name}", work.size.paper_data, sources_of(work.model)
    counts = draw_paper_pairs(_triplets_file(work), out, data, sources, filtered, work.device, _watch(work, name))
    clip, tokenizer = load_clip(work.model, work.device)
    latents = paper_latents(out, data.pairs, load_vae(work.model, work.device), text_tower(clip), tokenizer)
    torch.save(vars(latents), _latents_file(work, name))
    drawn = sum(count for outcome, count in counts.items() if outcome.startswith("samples "))
    found = audit(load_reader(work.model / "reader", work.device), itertools.islice(read_pairs(out), data.pairs))
    figures: dict[str, float] = {"kept": len(latents.latents), "drawn": drawn, "audited": found.pairs}
    figures |= {"as_captioned": found.as_captioned, "changed_as_asked": found.changed, "kept_the_rest": found.kept}
    return {f"{name}_{figure}": float(value) for figure, value in figures.items()}


def _paper(work: Work) -> dict[str, float]:
    _train(work, "paper", work.size.paper, load_latents(_latents_file(work, "pairs"), "pairs --route paper"))
    return {}


def _ablations(work: Work) -> dict[str, float]:
    data = load_latents(_latents_file(work, "pairs"), "pairs --route paper")
    unfiltered = load_latents(_latents_file(work, "unfiltered"), "unfiltered --route paper")
    for name, part in shares(data, unfiltered):
        _train(work, name, work.size.ablation, part)
    return {}


def _control(work: Work) -> dict[str, float]:
    """What the same training makes of as many rendered pairs: it tells what the pairs cost from what few pairs do."""
    pairs = draw_pairs("train", work.size.paper_data.pairs, work.size.pixels)
    clip, tokenizer = load_clip(work.model, work.device)
    data = prepare_latents(pairs, load_vae(work.model, work.device), text_tower(clip), tokenizer, work.seed)
    forwards = Latents(data.latents, data.contexts, data.texts[:, :1, :1], data.scale)
    _train(work, "control", work.size.ablation, forwards)
    return {}


def _train(work: Work, name: str, stage: Stage, data: Latents) -> None:
    torch.manual_seed(work.seed)
    unet = load_unet(base_folder(work.model))
    grow(unet)
    run = work.run(name)
    trained: UNet2DConditionModel = fit(unet, diffusion_loss(unet, data, stage.batch // world()), stage, run)
    if rank() == 0:
        publish_beside(trained, work.size, work.model, trained_folder(work, name))


def _watch(work: Work, stage: str) -> Advance:
    return lambda done, line: work.watch(stage, done, line)


def _triplets_file(work: Work) -> Path:
    return work.runs / f"{work.size.name}-triplets.jsonl"


def _latents_file(work: Work, name: str) -> Path:
    return work.runs / f"{work.size.name}-{name}-latents.pt"


PAPER = Route(
    {
        "triplets": _triplets,
        "pairs": _pairs,
        "unfiltered": _unfiltered,
        "paper": _paper,
        "ablations": _ablations,
        "control": _control,
    },
    parallel=("paper", "ablations"),
)
