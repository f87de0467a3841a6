"""An exported bundle: a folder that edits without PyTorch, described by its bundle.json and checked before it is used.

`ip2p-fast export` writes bundles, `backends/bundle_backend.py` runs them. Here are only JSON, hashes and numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .errors import ModelError
from .model_files import read_json
from .samplers import NoiseSchedule
from .whole import sha256_of

MANIFEST = "bundle.json"
TOKENIZER = "tokenizer"
"""The folder of the tokenizer's files."""
TABLES = "tables.json"
"""Sampler tables of some numbers of steps, for programs in other languages."""
SCHEMA = 1
"""Of bundle.json. It grows when an older reader would misread a newer bundle."""
GRAPHS = ("guided_step", "text_encoder", "vae_encoder", "vae_decoder")
"""Those a backend runs."""
EDIT = "edit"
"""The whole edit in one graph, for programs without a loop of their own."""
INT8 = "guided_step_int8"
"""The guided step in 8-bit integers, in OpenVINO's own form; a bundle may have it besides."""
DTYPES = ("float32", "float16")
"""What a bundle can compute in. Its inputs and outputs are float32 either way."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph: numpy's name of its dtype, and its sides, a letter where they may vary."""

    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """One ONNX file of the bundle, the files its weights are in, and its inputs and outputs by name."""

    file: str
    weights: tuple[str, ...]
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True)
class FileFacts:
    """What a file of the bundle must be."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """What bundle.json says; its fields are those of `ModelInfo` and what a backend needs to open the files.

    dtype           what the graphs compute in
    scaling_factor  latents are this times the VAE encoder's mode
    graphs          by name, those of GRAPHS
    distilled       the model is told the guidance scales and needs one row an edit
    edit            the whole edit in one graph, or None
    int8            the file of the guided step in int8, for OpenVINO, or None
    files           by path from the folder, all but bundle.json
    """

    folder: Path
    model: str
    dtype: str
    schedule: NoiseSchedule
    latent_channels: int
    vae_scale: int
    scaling_factor: float
    size_multiple: int
    defaults: Mapping[str, Any]
    graphs: Mapping[str, Graph]
    distilled: bool
    edit: Graph | None
    int8: str | None
    files: Mapping[str, FileFacts]


def is_bundle(model: Any) -> bool:
    """Whether `model` is the path of a folder with a bundle.json."""
    return isinstance(model, (str, Path)) and (Path(model).expanduser() / MANIFEST).is_file()


def read_bundle(folder: str | Path) -> Bundle:
    """Reads bundle.json and checks every file it lists, by size and then by SHA-256.

    Raises:
        ModelError: no bundle, a file that is absent, truncated or changed, or a bundle of a newer ip2p-fast.
    """
    folder = Path(folder).expanduser()
    bundle = parse(folder, read_json(folder / MANIFEST))
    for name, facts in bundle.files.items():
        _check_file(folder / name, facts)
    return bundle


def parse(folder: Path, content: Mapping[str, Any]) -> Bundle:
    """bundle.json's content as a Bundle; no other file is opened. Raises ModelError, naming what is wrong with it."""
    schema = content.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ModelError(f"{folder / MANIFEST} is damaged: schema is {schema!r}, a whole number from 1 is needed")
    if schema > SCHEMA:
        raise ModelError(
            f"{folder} is a bundle of schema {schema}, and this ip2p-fast reads up to {SCHEMA}: update it, or export "
            "the model again with this version"
        )
    try:
        bundle = _parsed(folder, content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ModelError(f"{folder / MANIFEST} is damaged: {reason}") from None
    if bundle.dtype not in DTYPES:
        raise ModelError(
            f"{folder} computes in {bundle.dtype!r}, which is none of {', '.join(DTYPES)}: export it again"
        )
    return bundle


def schedule_to_json(schedule: NoiseSchedule) -> dict[str, Any]:
    """What `parse` makes the same schedule of, to the last bit."""
    return {**vars(schedule), "alphas_cumprod": [float(alpha) for alpha in schedule.alphas_cumprod]}


def _parsed(folder: Path, content: Mapping[str, Any]) -> Bundle:
    for name in content["files"]:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise ValueError(f"it points outside its folder, to {name!r}")
    files = {name: FileFacts(**facts) for name, facts in content["files"].items()}
    graphs = {name: _graph(content["graphs"][name]) for name in GRAPHS}
    edit = _graph(content["graphs"][EDIT]) if EDIT in content["graphs"] else None
    described = [*graphs.values(), *([edit] if edit else [])]
    needed = [file for graph in described for file in (graph.file, *graph.weights)]
    if (int8 := content.get("int8")) is not None:
        needed += [int8["file"], *int8["weights"]]
    for name in (*needed, f"{TOKENIZER}/tokenizer.json"):
        if name not in files:
            raise ValueError(f"it lists no hash of {name}")
    schedule = dict(content["schedule"])
    return Bundle(
        folder=folder,
        model=str(content["model"]["name"]),
        dtype=content["dtype"],
        schedule=NoiseSchedule(**schedule | {"alphas_cumprod": np.array(schedule["alphas_cumprod"], np.float64)}),
        latent_channels=int(content["latent_channels"]),
        vae_scale=int(content["vae_scale"]),
        scaling_factor=float(content["scaling_factor"]),
        size_multiple=int(content["size_multiple"]),
        defaults=dict(content["defaults"]),
        graphs=graphs,
        distilled=bool(content.get("distilled", False)),
        edit=edit,
        int8=None if int8 is None else int8["file"],
        files=files,
    )


def _graph(content: Mapping[str, Any]) -> Graph:
    inputs, outputs = (
        {name: TensorSpec(spec["dtype"], tuple(spec["shape"])) for name, spec in content[side].items()}
        for side in ("inputs", "outputs")
    )
    return Graph(content["file"], tuple(content["weights"]), inputs, outputs)


def _check_file(path: Path, facts: FileFacts) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise ModelError(f"{path}: no such file; the bundle is incomplete, export it again") from None
    if size != facts.bytes:
        raise ModelError(
            f"{path} has {size} bytes, must have {facts.bytes}: it is truncated or changed; copy the bundle again"
        )
    if sha256_of(path) != facts.sha256:
        raise ModelError(f"{path} is not the file that was exported (its SHA-256 differs); copy the bundle again")
