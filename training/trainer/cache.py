"""Latents and texts encoded once, in a folder of their own: a step then costs the UNet alone.

cache.json            what was encoded, by what; the number of parts
part-00000/           what one process encoded: part.json (of what, its numbers),
    latents.bin       float16 [N, 2, 4, h, w]: before and after, the mode, not scaled
    contexts.bin      float16 [T, 77, D]: of the distinct instructions
    texts.bin         int64 [N]: the row of each record's instruction
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed

from ip2p_fast.errors import BadInput
from ip2p_fast.whole import whole

from ..dataset.forms.record import PairRecord
from .draws import Purpose, rng_of
from .encoding import encode_pairs, encode_texts, targets
from .faults import Faults
from .feeds import Encoded
from .lanes import Order, training_records
from .parts import Parts
from .pictures import pixels_of
from .recipe import Recipe


class Cache:
    """A feed of what a folder holds, mapped from its files; each epoch in an order of its own."""

    def __init__(self, folder: Path, parts: Parts, seed: int) -> None:
        self._parts, self._seed = parts, seed
        self._pieces = [_mapped(folder / f"part-{i:05d}") for i in range(_read(folder / "cache.json")["parts"])]
        self._ends = np.cumsum([len(latents) for latents, _, _ in self._pieces])
        self._epochs: dict[int, np.ndarray] = {}

    @classmethod
    def made(cls, order: Order, parts: Parts, recipe: Recipe, rank: int, world: int, faults: Faults) -> Cache:
        """The cache of these records; where it is not there yet, this process encodes its share of them.

        Raises:
            BadInput: the folder's cache is of something else (named), or there is no record that can be used.
        """
        folder = Path(recipe.cache)
        wanted = _described(order, parts, recipe)
        if (folder / "cache.json").is_file():
            _require_same(_read(folder / "cache.json"), wanted, folder)
            return cls(folder, parts, recipe.seed)
        encode_part(folder, order, parts, recipe, rank, world, faults)
        _together()
        if rank == 0:
            with whole(folder / "cache.json") as partial:
                partial.write_text(json.dumps({**wanted, "parts": world}, indent=2) + "\n", encoding="utf-8")
        _together()
        return cls(folder, parts, recipe.seed)

    def batches(
        self, places: Iterator[list[int]], marks: dict[str, list[int]]
    ) -> Iterator[tuple[list[int], Encoded, dict[str, list[int]]]]:
        device = next(self._parts.vae.parameters()).device
        for indices in places:
            rows = [self._row(index) for index in indices]
            pairs, texts = zip(*rows, strict=True)
            latents = torch.from_numpy(np.stack(pairs)).to(device).float()  # [B, 2, 4, h, w]
            target = targets(self._parts, latents[:, 1], None, indices, self._seed)
            yield indices, (latents[:, 0], target, torch.from_numpy(np.stack(texts)).to(device).float()), {}

    def _row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Latents and context of a place in the stream."""
        count = int(self._ends[-1])
        epoch, place = divmod(index, count)
        if epoch not in self._epochs:
            kept = {old: rows for old, rows in self._epochs.items() if old == epoch - 1}
            self._epochs = {**kept, epoch: rng_of(self._seed, Purpose.FILES, epoch).permutation(count)}
        row = int(self._epochs[epoch][place])
        piece = int(np.searchsorted(self._ends, row, "right"))
        latents, contexts, texts = self._pieces[piece]
        row -= int(self._ends[piece]) - len(latents)
        return latents[row], contexts[texts[row]]


def encode_part(
    folder: Path, order: Order, parts: Parts, recipe: Recipe, rank: int, world: int, faults: Faults
) -> None:
    """Writes folder/part-RANK, of every `world`-th record from number `rank` on, unless it is there.

    Raises:
        BadInput: none of them can be used, the folder cannot be written, or a part of something else is there.
    """
    part = folder / f"part-{rank:05d}"
    of = {**_described(order, parts, recipe), "parts": world}
    if part.is_dir():
        _require_same(_read(part / "part.json").get("of", {}), of, folder)
        return
    rows: dict[str, int] = {}
    records = 0
    shape: Mapping[str, list[int]] = {}
    with whole(part) as partial:
        partial.mkdir()
        with (
            (partial / "latents.bin").open("wb") as latents,
            (partial / "contexts.bin").open("wb") as contexts,
            (partial / "texts.bin").open("wb") as texts,
        ):
            for batch in _decoded(order, recipe, rank, world, faults):
                image, mean, _ = encode_pairs(parts, np.stack([pixels for _, pixels in batch]), recipe.precision)
                latents.write(_half(pair := torch.stack([image, mean], 1)))
                new = [r.instruction for r, _ in batch if r.instruction not in rows]
                for text in dict.fromkeys(new):
                    rows[text] = len(rows)
                    contexts.write(_half(context := encode_texts(parts, [text], recipe.precision)))
                    shape = {"context": list(context.shape[1:])}
                texts.write(np.array([rows[record.instruction] for record, _ in batch], np.int64).tobytes())
                records += len(batch)
                shape = {**shape, "latents": list(pair.shape[1:])}
        if not records:
            raise BadInput(f"no record of process {rank} of {world} can be used: nothing to encode")
        numbers = {"records": records, "texts": len(rows), **shape, "of": of}
        (partial / "part.json").write_text(json.dumps(numbers) + "\n", encoding="utf-8")


def _described(order: Order, parts: Parts, recipe: Recipe) -> dict[str, Any]:
    weights = 0
    for network in (parts.vae, parts.text_encoder):
        for tensor in network.state_dict().values():
            weights = zlib.crc32(tensor.float().cpu().numpy().tobytes(), weights)
    return {
        "resolution": recipe.resolution,
        "data": list(order.pieces),
        "held_out": order.held_out,
        "autoencoder or text encoder": weights,
    }


def _decoded(
    order: Order, recipe: Recipe, rank: int, world: int, faults: Faults
) -> Iterator[list[tuple[PairRecord, np.ndarray]]]:
    batch: list[tuple[PairRecord, np.ndarray]] = []
    for number, record in enumerate(training_records(order, faults)):
        if number % world != rank:
            continue
        try:
            batch.append((record, pixels_of(record, (recipe.resolution, recipe.resolution), None)))
        except BadInput as error:
            faults.add(record.key, str(error))
        if len(batch) == recipe.batch:
            yield batch
            batch = []
    if batch:
        yield batch


def _half(tensor: torch.Tensor) -> bytes:
    return tensor.cpu().half().numpy().tobytes()


def _mapped(part: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    numbers = _read(part / "part.json")
    try:
        count, texts = numbers["records"], numbers["texts"]
        return (
            np.memmap(part / "latents.bin", np.float16, "r", shape=(count, *numbers["latents"])),
            np.memmap(part / "contexts.bin", np.float16, "r", shape=(texts, *numbers["context"])),
            np.memmap(part / "texts.bin", np.int64, "r", shape=(count,)),
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{part} is damaged ({error}): remove {part.parent}, and it is made again") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}): remove the cache, and it is made again") from error


def _require_same(there: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    if differing := [name for name, value in wanted.items() if there.get(name) != value]:
        raise BadInput(f"{folder} was made with another {differing[0]}: remove it, or choose another --cache")


def _together() -> None:
    if distributed.is_initialized():
        distributed.barrier()
