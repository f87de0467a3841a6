"""Training pairs of the pocket world by the paper's way: no scene is rendered for them, and no edit is known.

Captions of training scenes go to the pocket writer, its triplets to pocket-base with Prompt-to-Prompt, and pocket CLIP
chooses (InstructPix2Pix, section 3.1).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from transformers import CLIPTextModel, CLIPTokenizer

from ip2p_fast.checkpoints import POCKET
from ip2p_fast.errors import BadInput
from ip2p_fast.images import load_image

from ..dataset.forms.formats import read_pairs
from ..dataset.forms.record import PairRecord
from ..dataset.options import guidance_of
from ..dataset.pairs.calibration import measure_known_pairs
from ..dataset.pairs.clip_scores import ClipScorer
from ..dataset.pairs.generator import Drawing
from ..dataset.pairs.making import Choice, Numbered, make_pairs, read_triplets
from ..dataset.pairs.pair_store import PairStore
from ..dataset.pairs.samples import Draws
from ..dataset.pairs.selection import calibrated, thresholds_of
from ..dataset.pairs.workers import Recipe, maker
from ..dataset.triplets.captions import Caption
from ..dataset.triplets.journal import Journal
from ..dataset.triplets.writers import Sampling, TransformersWriter
from ..dataset.triplets.writing import Rules, write_triplets
from . import language
from .publish import base_folder, writer_folder
from .sizes import PaperData
from .split import draw_pair, is_held_out
from .unet import Latents, encode_texts
from .vae import encode

_ASKED_AT_ONCE = 256
_CALIBRATED_ON = 500
_PAIRS_AT_ONCE = 16
Advance = Callable[[float, str], None]
"""Told the share that is done and a line on how it goes."""


@dataclass(frozen=True)
class Sources:
    """Who makes the pairs: a text-to-image model, a CLIP and a language model, by shipped name or folder."""

    base: str
    clip: str
    writer: str


def sources_of(model: Path) -> Sources:
    """Those that belong to a pocket model. A CLIP that has no thresholds yet gets its own."""
    if model == POCKET:
        return Sources("pocket-base", "pocket", "pocket-writer")
    thresholds = model / "clip" / "thresholds.json"
    if not thresholds.exists():
        found = calibrated(*measure_known_pairs(ClipScorer(model / "clip"), _CALIBRATED_ON))
        thresholds.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    return Sources(str(base_folder(model)), str(model / "clip"), str(writer_folder(model)))


def write_scene_triplets(path: Path, count: int, writer: str, device: str, advance: Advance) -> dict[str, int]:
    """Has a writer write to the captions of `count` training scenes; goes on where an earlier call stopped."""
    captions = (Caption(i + 1, scene_caption(i)) for i in range(count))
    settings = {"captions": count, "writer": writer, **vars(Sampling())}
    with Journal(path, settings, resume=True) as journal:
        return write_triplets(
            captions,
            TransformersWriter(writer, Sampling(), device),
            journal,
            Rules(),
            batch=_ASKED_AT_ONCE,
            advance=lambda used: advance(used / count, f"{used} of {count} captions"),
        )


def draw_paper_pairs(
    triplets: Path, out: Path, data: PaperData, sources: Sources, filtered: bool, device: str, advance: Advance
) -> dict[str, int]:
    """Draws samples of the triplets, one after the other, until `data.pairs` are kept; goes on where it stopped.

    filtered: False keeps the first samples whatever CLIP says, as many of a triplet as CLIP might.

    Raises:
        BadInput: the triplets do not suffice.
    """
    thresholds = replace(thresholds_of(sources.clip), most=data.most)
    draws = Draws(data.samples if filtered else data.most, cfg=guidance_of(sources.base))
    choice = Choice(draws, thresholds, filtered)
    recipe = Recipe(sources.base, sources.clip, Drawing(data.steps, at_once=_PAIRS_AT_ONCE), choice, device=device)
    with PairStore(out, {"triplets": triplets.name, **recipe.settings}, resume=True) as store:

        def kept() -> int:
            return store.counts.get("samples kept", 0)

        lines = itertools.takewhile(lambda line: kept() < data.pairs, _training_lines(read_triplets(triplets)))
        counts = make_pairs(
            lines, maker(recipe), store, advance=lambda _, __: advance(min(1.0, kept() / data.pairs), f"{kept()} kept")
        )
        if kept() < data.pairs:
            raise BadInput(
                f"{triplets} gave {kept()} pairs of the {data.pairs} that were asked for: write more triplets"
            )
    return counts


def paper_latents(
    shards: Path, count: int, vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> Latents:
    """The first `count` pairs of a set as the UNet's trainer wants them: read forwards only, in their one phrasing."""
    records = list(itertools.islice(read_pairs(shards), count))
    pictures = np.stack([_pictures(record) for record in records])  # [N, 2, S, S, 3]
    rows = {text: row for row, text in enumerate(dict.fromkeys(["", *(record.instruction for record in records)]))}
    texts = torch.tensor([rows[record.instruction] for record in records])
    with torch.autocast(vae.device.type, torch.bfloat16):
        latents = torch.stack([encode(vae, pictures[:, side]) for side in (0, 1)], 1).half()
    contexts = encode_texts(text_encoder, tokenizer, list(rows)).half()
    return Latents(latents, contexts, texts[:, None, None], float(vae.config["scaling_factor"]))


def scene_caption(index: int, seed: int = 0) -> str:
    """The caption of a training scene, in a phrasing of its own."""
    return language.caption(draw_pair("train", index).scene, np.random.default_rng([seed, index]))


def _training_lines(lines: Iterable[Numbered]) -> Iterator[Numbered]:
    """A writer may lead from a training scene to one that is held out: such a line is passed on as none to draw."""
    for line in lines:
        if line.triplet is not None and _is_held_out(line.triplet.output):
            line = Numbered(line.number, None, "its edited caption is that of a held-out scene")
        yield line


def _is_held_out(caption: str) -> bool:
    try:
        return is_held_out(language.parse_caption(caption))
    except BadInput:  # the writer has words of its own
        return False


def _pictures(record: PairRecord) -> np.ndarray:
    return np.stack([np.asarray(load_image(data)) for data in (record.input_image, record.edited_image)])
