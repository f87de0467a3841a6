"""The model that a matrix edits with, as a folder, and what it is to be measured at."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ip2p_fast.checkpoints import SHIPPED
from ip2p_fast.editor import DEFAULTS
from ip2p_fast.errors import BadInput

from .exported import write_samples
from .own_process import in_own_process
from .random_model import SD15, TINY
from .sd15 import model_to_export

RANDOM = "sd15"
"""Random weights of Stable Diffusion 1.5's size, for which nothing is downloaded."""
_LARGE = 256
"""Pixels from which a model also edits pictures of half its own size."""


@dataclass(frozen=True)
class MatrixModel:
    """
    name      for ids
    folder    in Hugging Face layout
    sizes     of pictures in pixels, the most important first
    unet      its UNet's config.json
    samples   pictures to calibrate int8 on, or None: it brings its own
    student   a model of one row that was distilled from it, or None
    """

    name: str
    folder: str
    sizes: tuple[int, ...]
    text_guidance: float
    image_guidance: float
    unet: Mapping[str, Any]
    samples: Path | None = None
    student: str | None = None


def matrix_model(name: str, sizes: Sequence[int] | None, device: str, folder: Path, quick: bool) -> MatrixModel:
    """Of "pocket", RANDOM, a folder or a hub id. Random weights are written to `folder`; a trial takes tiny ones.

    sizes: None for the model's own, and half, one and a half or two times it.
    Raises BadInput for a size that the model cannot edit, or a model that is no folder of the usual layout.
    """
    if quick or name == RANDOM:
        usual = (64, 128) if quick else (256, 512, 768) if device == "cpu" else (512, 256, 768)
        chosen = tuple(sizes or usual)
        made = model_to_export(TINY if quick else SD15, chosen[0] // 8, folder)
        return _described("tiny" if quick else RANDOM, made, chosen, write_samples(folder))
    found = SHIPPED.get(name) or (Path(name) if Path(name).exists() else _downloaded(name))
    if not (Path(found) / "model_index.json").is_file():
        raise BadInput(f"{name} has no model_index.json: the matrix needs a folder in Hugging Face layout or a hub id")
    word = re.sub(r"[^a-z0-9]+", "_", Path(name).name.lower())
    described = _described(word, Path(found), tuple(sizes or ()))
    return replace(described, student="pocket-student") if name == "pocket" else described


def _described(name: str, folder: Path, sizes: tuple[int, ...], samples: Path | None = None) -> MatrixModel:
    facts = in_own_process(_facts, str(folder))
    own, multiple = int(facts["size"]), int(facts["multiple"])
    sizes = sizes or tuple(size for size in _around(own) if not size % multiple)
    if wrong := [size for size in sizes if size < multiple or size % multiple]:
        raise BadInput(f"size {wrong[0]}: the model edits multiples of {multiple}, from {multiple} on")
    config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    unet = {key: value for key, value in config.items() if not key.startswith("_")}
    return MatrixModel(name, str(folder), sizes, facts["text_guidance"], facts["image_guidance"], unet, samples)


def _around(own: int) -> tuple[int, ...]:
    return (own, own // 2, own * 3 // 2) if own >= _LARGE else (own, own * 3 // 2, own * 2)


def _facts(folder: str) -> dict[str, Any]:
    from ip2p_fast import Editor

    info = Editor.from_pretrained(folder, "torch", "cpu").backend.info
    return {**DEFAULTS, **info.defaults, "multiple": info.size_multiple}


def _downloaded(name: str) -> Path:
    from ip2p_fast.hub import download

    return download(name)
