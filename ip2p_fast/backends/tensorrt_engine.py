"""TensorRT engines of a bundle: how they are built, kept and found again.

An engine is for one GPU architecture, one version of the library, one bundle and a range of shapes. All of that is in
the engines.json beside the engines, and checked before one is loaded. TensorRT-RTX builds without a GPU, for any.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..bundle import MANIFEST, Bundle, FileFacts, TensorSpec, check_file
from ..errors import BadInput, ModelError
from ..model_files import read_json
from ..whole import sha256_of, whole
from .tensorrt_library import KIND, VERSION, Log, trt

FOLDER = "tensorrt"
"""In the bundle's own; a folder for each GPU and version in it."""
FACTS = "engines.json"
SCHEMA = 1
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Limits:
    """The shapes that engines take; they are fastest at `size`.

    edits     most edits in one step; three rows and two texts each
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

    def range_of(self, side: str, vae_scale: int) -> tuple[int, int, int]:
        """Lowest, usual and highest value of a varying side of a graph."""
        pixels = (self.smallest, self.size, self.largest)
        ranges = {
            "B": (1, 1, self.edits),
            "R": (1, 3, 3 * self.edits),
            "C": (1, 2, 2 * self.edits),
            "N": (1, 1, 2 * self.edits),
            "H": pixels,
            "W": pixels,
            "h": tuple(side // vae_scale for side in pixels),
            "w": tuple(side // vae_scale for side in pixels),
        }
        low, usual, high = ranges[side]
        return low, usual, high

    def shapes(self, spec: TensorSpec, vae_scale: int) -> tuple[Shape, Shape, Shape]:
        """Lowest, usual and highest shape of an input."""
        sides = [self.range_of(s, vae_scale) if isinstance(s, str) else (s, s, s) for s in spec.shape]
        low, usual, high = zip(*sides, strict=True)
        return tuple(low), tuple(usual), tuple(high)

    def require(self, graph: str, name: str, spec: TensorSpec, shape: Shape, vae_scale: int) -> None:
        """Raises BadInput, naming the side and its range, for a shape that the engines do not take."""
        for side, value in zip(spec.shape, shape, strict=True):
            low, _, high = self.range_of(side, vae_scale) if isinstance(side, str) else (side, side, side)
            if not low <= value <= high:
                raise BadInput(
                    f"{graph}: {side} of {name} is {value}, and its engine takes {low} to {high}: edit fewer at once "
                    "(max_rows), another size, or build engines of other limits with ip2p-fast export engines"
                )


def engines_folder(bundle: Bundle, gpu: str) -> Path:
    """Where the engines of a bundle for a GPU, as sm89, and this version of the library are."""
    return bundle.folder / FOLDER / f"{KIND}-{VERSION}-{gpu}"


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
        BadInput: an unknown GPU, or a folder that cannot be written. ModelError: a graph that cannot be built, naming
        the operation that is not supported and its place.
    """
    folder = engines_folder(bundle, gpu)
    try:
        folder.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"cannot write {folder.parent}: {error.strerror}; copy the bundle to a place of your own"
        ) from error
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
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(network, log, bundle.folder / bundle.graphs[name].file)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is float32, as in every other backend
    if KIND == "tensorrt_rtx":
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capability(gpu), 0)
    profile = builder.create_optimization_profile()
    for tensor, spec in bundle.graphs[name].inputs.items():
        profile.set_shape(tensor, *limits.shapes(spec, bundle.vae_scale))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ModelError(f"{name} cannot be built for {gpu}: {log.last()}")
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
        check_file(folder / f"{name}.engine", file)
    return limits, {name: folder / f"{name}.engine" for name in files}


def _parse(network: Any, log: Log, path: Path) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(path)):
        return
    if not parser.num_errors:
        raise ModelError(f"{path} cannot be parsed: {log.last()}")
    error = parser.get_error(0)
    place = f"{error.node_operator()} (node {error.node_name()})" if error.node_name() else "the file itself"
    raise ModelError(f"{path}: {KIND} {VERSION} cannot take {place}: {' '.join(error.desc().split())[:200]}")


def _capability(gpu: str) -> Any:
    known = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    if gpu.upper() not in known:
        raise BadInput(f"unknown GPU {gpu!r}: {KIND} {VERSION} builds for {', '.join(name.lower() for name in known)}")
    return trt.ComputeCapability.__members__[gpu.upper()]
