"""A small run of `dataset pairs` that a test can start in a process of its own, and kill."""

import os
from pathlib import Path

import torch

from ip2p_fast.training.dataset.pairs.generator import Drawing
from ip2p_fast.training.dataset.pairs.making import Choice, make_pairs, read_triplets
from ip2p_fast.training.dataset.pairs.pair_store import PairStore
from ip2p_fast.training.dataset.pairs.samples import Draws
from ip2p_fast.training.dataset.pairs.selection import Thresholds
from ip2p_fast.training.dataset.pairs.workers import Recipe, maker

PER_SHARD = 5
DIRECTION = "direction.txt"


def recipe(folder: Path, **drawing) -> Recipe:
    """Random models of `folder`; half of the samples reach the threshold that is noted there, if one is."""
    noted = folder / DIRECTION
    least = float(noted.read_text()) if noted.exists() else -1.0
    thresholds = Thresholds(text_image=-1.0, direction=least, image=-1.0, most=2)
    return Recipe(
        base=str(folder / "base"),
        clip=str(folder / "clip"),
        drawing=Drawing(**{"steps": 4, "at_once": 3} | drawing),
        choice=Choice(Draws(count=4), thresholds),
        device="cpu",
        dtype="float32",
    )


def work(folder: Path, out: Path) -> None:
    """Makes the pairs of triplets.jsonl, from where `out` stopped."""
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    made = recipe(folder)
    with PairStore(out, made.settings, PER_SHARD, resume=True) as store:
        make_pairs(read_triplets(folder / "triplets.jsonl"), maker(made), store)
