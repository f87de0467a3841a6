"""TensorRT engines of a bundle: how they are built, kept and found again.

An engine is for one GPU architecture, one version of the library, one bundle and a range of shapes. All of that is in
the engines.json beside the engines, and checked before one is loaded. TensorRT-RTX builds without a GPU, for any;
TensorRT for the GPU that is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import MANIFEST, Bundle, FileFacts
from ..errors import BadInput, ModelError
from ..model_files import read_json
from ..whole import sha256_of, whole
from .cuda_memory import CudaDevice
from .tensorrt_library import KIND, LOG, RTX, VERSION, trt
from .tensorrt_timing import keep_timings, use_timings

FOLDER = "tensorrt"
"""In the bundle's own; a folder for each GPU and version in it."""
FACTS = "engines.json"
SCHEMA = 1
Shape = tuple[int, ...]
Range = tuple[int, int, int]
"""Lowest, usual and highest."""


@dataclass(frozen=True)
class Limits:
    """The shapes that engines take; they are fastest at `size`.

    edits     most edits in one step; three rows and two texts each, or one of both if the model is distilled
    smallest  size, largest   sides of pictures in pixels
    """

    edits: int
    smallest: int
    size: int
    largest: int

    @classmethod
    def of(cls, bundle: Bundle, edits: int = 4, sizes: tuple[int, int, int] | None = None) -> Limits:
        """By default from half the model's own size to one and a half times it.

        Raises BadInput for limits that make no sense.
        """
        multiple, own = bundle.size_multiple, int(bundle.defaults["size"])
        smallest, size, largest = sizes or (max(multiple, own // 2 // multiple * multiple), own, own * 3 // 2)
        largest = largest if sizes else largest // multiple * multiple
        if edits < 1:
            raise BadInput(f"an engine of {edits} edits: at least 1 is needed")
        if not 0 < smallest <= size <= largest:
            raise BadInput(
                f"sizes {smallest}, {size}, {largest}: the smallest, the usual and the largest, in that order"
            )
        for side in (smallest, size, largest):
            if side % multiple:
                raise BadInput(f"size {side} is no multiple of {multiple}, which the model's pictures are")
        return cls(edits, smallest, size, largest)

    def ranges(self, bundle: Bundle, graph: str) -> dict[str, Range]:
        """Of every varying side of a graph's inputs.

        The encoders and the decoder take one picture or text at a time, as the loop gives them, so that the memory they
        work in is one picture's.
        """
        edits = self.edits if graph == "guided_step" else 1
        rows, texts = (1, 1) if bundle.distilled else (3, 2)
        pixels = (self.smallest, self.size, self.largest)
        latents = (self.smallest // bundle.vae_scale, self.size // bundle.vae_scale, self.largest // bundle.vae_scale)
        return {
            "B": (1, 1, edits),
            "R": (1, rows, rows * edits),
            "C": (1, texts, texts * edits),
            "N": (1, 1, edits),
            "H": pixels,
            "W": pixels,
            "h": latents,
            "w": latents,
        }

    def shapes(self, bundle: Bundle, graph: str) -> dict[str, tuple[Shape, ...]]:
        """Lowest, usual and highest shape of every input of a graph."""
        ranges = self.ranges(bundle, graph)
        return {
            name: tuple(tuple(ranges[s][i] if isinstance(s, str) else s for s in spec.shape) for i in range(3))
            for name, spec in bundle.graphs[graph].inputs.items()
        }

    def require(self, bundle: Bundle, graph: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Raises BadInput, naming the side and its range, for a shape that the engines do not take."""
        ranges = self.ranges(bundle, graph)
        for name, spec in bundle.graphs[graph].inputs.items():
            for side, value in zip(spec.shape, inputs[name].shape, strict=True):
                low, _, high = ranges[side] if isinstance(side, str) else (side, side, side)
                if not low <= value <= high:
                    raise BadInput(
                        f"{graph}: {side} of {name} is {value}, and its engine takes {low} to {high}: edit fewer at "
                        "once, another size, or build engines of other limits with ip2p-fast export engines"
                    )


def engines_folder(bundle: Bundle, gpu: str) -> Path:
    """Where the engines of a bundle for a GPU, as sm89, and this version of the library are."""
    return bundle.folder / FOLDER / f"{KIND}-{VERSION}-{gpu}"


def timings_file(bundle: Bundle, gpu: str) -> Path:
    """Where the timing cache of a bundle for a GPU and this version of the library is."""
    return bundle.folder / FOLDER / f"{KIND}-{VERSION}-{gpu}.timings"


def build_engines(
    bundle: Bundle,
    gpu: str,
    limits: Limits,
    watch: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Path:
    """Builds an engine of every graph and returns their folder, which appears whole or not at all.

    Args:
        gpu: the architecture, as sm89. TensorRT-RTX builds for any; TensorRT for the GPU that is there.
        watch: told what is built, how many graphs are done, and of how many.

    Raises:
        BadInput: a GPU that cannot be built for here, engines that are there already, or a folder that cannot be
        written. ModelError: a graph that cannot be built, naming the operation that is not supported and its place.
    """
    _require_buildable(gpu)
    folder = engines_folder(bundle, gpu)
    if folder.exists():
        raise BadInput(f"there are engines in {folder} already: remove it to build others in their place")
    nearest = folder.parent if folder.parent.exists() else bundle.folder
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):  # before minutes are spent
        raise BadInput(f"engines cannot be written to {folder.parent}: copy the bundle to a place of your own")
    with whole(folder) as partial:
        partial.mkdir()
        for done, name in enumerate(bundle.graphs):
            watch(f"building {name}", done, len(bundle.graphs))
            (partial / f"{name}.engine").write_bytes(build_engine(bundle, name, gpu, limits))
        files = {path.name: asdict(FileFacts(path.stat().st_size, sha256_of(path))) for path in partial.iterdir()}
        facts = {"schema": SCHEMA, "library": KIND, "version": VERSION, "gpu": gpu, "limits": asdict(limits)}
        facts |= {"bundle": sha256_of(bundle.folder / MANIFEST), "files": files}
        (partial / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return folder


def build_engine(bundle: Bundle, name: str, gpu: str, limits: Limits) -> memoryview:
    """One engine, serialised. Types are those of the graph, no other precision is chosen for it."""
    LOG.clear()
    builder = trt.Builder(LOG)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = _parsed(network, bundle.folder / bundle.graphs[name].file)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is float32, as in every other backend
    if KIND == RTX:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.__members__[gpu.upper()], 0)
    profile = builder.create_optimization_profile()
    for tensor, shapes in limits.shapes(bundle, name).items():
        profile.set_shape(tensor, *shapes)
    config.add_optimization_profile(profile)
    timings = timings_file(bundle, gpu)
    if KIND != RTX:
        use_timings(config, timings)
    engine = builder.build_serialized_network(network, config)
    del parser  # not before: the network's weights are the parser's
    if engine is None:
        raise ModelError(f"{name} cannot be built for {gpu}: {LOG.first()}")
    if KIND != RTX:
        keep_timings(config, timings)
    return memoryview(engine)


def read_engines(bundle: Bundle, gpu: str) -> tuple[Limits, Mapping[str, Path]] | None:
    """The limits and files of the engines for this GPU and version; None where there are none.

    Raises ModelError for engines that are of another bundle, GPU or version, damaged, or incomplete.
    """
    folder = engines_folder(bundle, gpu)
    if not folder.is_dir():
        return None
    facts = read_json(folder / FACTS)
    expected = {"schema": SCHEMA, "library": KIND, "version": VERSION, "gpu": gpu}
    expected["bundle"] = sha256_of(bundle.folder / MANIFEST)
    for name, value in expected.items():
        if facts.get(name) != value:
            raise ModelError(
                f"the engines in {folder} are of {name} {facts.get(name)!r}, and {value!r} is needed: remove the "
                "folder, and they are built again"
            )
    try:
        limits = Limits(**facts["limits"])
        files = {name: FileFacts(**facts["files"][f"{name}.engine"]) for name in bundle.graphs}
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder / FACTS} is damaged: {error}") from None
    for name, file in files.items():
        path = folder / f"{name}.engine"
        if not path.is_file() or FileFacts(path.stat().st_size, sha256_of(path)) != file:
            raise ModelError(
                f"{path} is not the engine that was built, it is absent, truncated or changed: remove the folder, and "
                "its engines are built again"
            )
    return limits, {name: folder / f"{name}.engine" for name in files}


def _parsed(network: Any, path: Path) -> Any:
    """Reads an ONNX file into the network; returns the parser, in whose memory its weights are."""
    parser = trt.OnnxParser(network, LOG)
    if parser.parse_from_file(str(path)):
        return parser
    if not parser.num_errors:
        raise ModelError(f"{path} cannot be parsed: {LOG.first()}")
    error = parser.get_error(0)
    place = f"{error.node_operator()} (node {error.node_name()})" if error.node_name() else "the file itself"
    raise ModelError(f"{path}: {KIND} {VERSION} cannot take {place}: {' '.join(error.desc().split())[:200]}")


def _require_buildable(gpu: str) -> None:
    if KIND == RTX:
        known = [name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
        if gpu not in known:
            raise BadInput(f"unknown GPU {gpu!r}: {KIND} {VERSION} builds for {', '.join(known)}")
    elif (here := CudaDevice().architecture) != gpu:
        raise BadInput(
            f"{KIND} {VERSION} builds for the GPU that is there, {here}, not for {gpu!r}: build on a machine with that "
            "GPU, or with TensorRT-RTX"
        )
