"""PIE-Bench (Ju et al. 2023, "Direct Inversion: Boosting Diffusion-based Editing with 3 Lines of Code"), unpacked.

    mapping_file.json      {"000000000000": {"image_path", "original_prompt", "editing_prompt", "editing_instruction",
                           "editing_type_id", "blended_word", "mask"}, ...}
    annotation_images/     the pictures, 512x512, under their image_path

Square brackets in a prompt mark the words that differ, and are no part of it. There is no picture of the wanted result.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ip2p_fast.errors import BadInput

from .cases import EditCase, distinct_cases, read_json, read_picture, require_pictures, texts_of

SIDE = 512
TYPES = (
    *("random", "change object", "add object", "delete object", "change content"),
    *("change pose", "change colour", "change material", "change background", "change style"),
)
"""By editing_type_id."""

_TEXTS = ("image_path", "original_prompt", "editing_prompt", "editing_instruction", "editing_type_id")


def read_pie_bench(folder: Path, limit: int | None = None) -> Iterator[EditCase]:
    """The cases in the file's order; the group is the type of edit, the id the picture's path without its ending.

    Raises:
        BadInput: a file or a field is absent (the message lists those there are), a mask or type is not of the layout,
            or a picture is not 512x512.
    """
    mapping = read_json(folder, "mapping_file.json", dict)
    entries = []
    for key, entry in itertools.islice(mapping.items(), limit):
        where = f"{folder / 'mapping_file.json'}, {key}"
        texts = texts_of(entry, _TEXTS, where)
        if texts[-1] not in map(str, range(len(TYPES))):
            raise BadInput(f"{where}: editing_type_id is {texts[-1]!r}: 0 to {len(TYPES) - 1} is needed")
        entries.append((texts, decode_mask(entry.get("mask"), where)))
    pictures = folder / "annotation_images"
    require_pictures(pictures / texts[0] for texts, _ in entries)
    return distinct_cases(_case(pictures, texts, mask) for texts, mask in entries)


def write_pie_bench(cases: Sequence[EditCase], folder: Path) -> None:
    """Writes cases with ids and groups as `read_pie_bench` gives them; pictures are PNG.

    Raises:
        ValueError: a case has no mask, or its group is no type of the benchmark.
    """
    mapping = {}
    for number, case in enumerate(cases):
        if case.mask is None:
            raise ValueError(f"{case.id} has no mask")
        path = folder / "annotation_images" / f"{case.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(case.source).save(path)
        mapping[f"{number:012d}"] = {
            "image_path": f"{case.id}.png",
            "original_prompt": case.source_caption,
            "editing_prompt": case.target_caption,
            "editing_instruction": case.instruction,
            "editing_type_id": str(TYPES.index(case.group.partition(" ")[2])),
            "blended_word": "",
            "mask": encode_mask(case.mask),
        }
    (folder / "mapping_file.json").write_text(json.dumps(mapping), encoding="utf-8")


def decode_mask(runs: Any, where: str = "the mask") -> np.ndarray:
    """Runs [start, length, start, length, ...] over the rows of 512x512, then the border of the picture.

    A run that passes the end is cut. The first and last rows and columns are always part of the mask, against faults of
    annotation at the border: the rule of the benchmark's evaluation.

    Returns:
        [512, 512] bool.

    Raises:
        BadInput: it is no array of pairs of whole numbers from 0.
    """
    if (
        not isinstance(runs, list)
        or len(runs) % 2
        or not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in runs)
    ):
        raise BadInput(f"{where}: the mask is no array of starts and lengths from 0")
    flat = np.zeros(SIDE * SIDE, bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = True
    mask = flat.reshape(SIDE, SIDE)
    mask[[0, -1]] = True
    mask[:, [0, -1]] = True
    return mask


def encode_mask(mask: np.ndarray) -> list[int]:
    """[512, 512] bool -> runs as `decode_mask` reads them.

    Raises:
        ValueError: another shape.
    """
    if mask.shape != (SIDE, SIDE):
        raise ValueError(f"the mask is {list(mask.shape)}: {SIDE}x{SIDE} is needed")
    edges = np.flatnonzero(np.diff(mask.ravel().astype(np.int8), prepend=0, append=0))  # starts and ends in turn
    starts, ends = edges[::2], edges[1::2]
    return [int(value) for pair in zip(starts, ends - starts, strict=True) for value in pair]


def _case(pictures: Path, texts: list[str], mask: np.ndarray) -> EditCase:
    path, before, after, instruction, kind = texts
    source = read_picture(pictures / path)
    if source.shape[:2] != (SIDE, SIDE):
        raise BadInput(f"{pictures / path} is {source.shape[1]}x{source.shape[0]}: its mask needs {SIDE}x{SIDE}")
    return EditCase(
        id=Path(path).with_suffix("").as_posix(),
        source=source,
        instruction=instruction,
        source_caption=_plain(before),
        target_caption=_plain(after),
        group=f"{kind} {TYPES[int(kind)]}",
        mask=mask,
    )


def _plain(prompt: str) -> str:
    return prompt.replace("[", "").replace("]", "")
