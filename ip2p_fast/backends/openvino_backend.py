"""The OpenVINO backend: an exported bundle edits on Intel's and AMD's processors and Intel's GPUs, without PyTorch.

A graph is compiled for the very shapes it is called with, which saves a third of a small model's step; where shapes
keep changing, and for those that a server did not see in its warm-up, one compilation for any shape takes over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..cpu_threads import cpu_threads
from ..errors import BadInput, MissingExtra, ModelError
from ..tokenizer import Tokenizer
from .bundle_backend import BundleBackend, opened

try:
    import openvino
except ModuleNotFoundError as error:
    raise MissingExtra("the openvino backend", "openvino") from error

# Bytes of weights that compilations for fixed shapes may take in all, each as much as the graph's own; one is kept
# whatever its size, and so is the one for any shape.
FIXED_BYTES = 1_000_000_000
INT8_DTYPE = "int8"
_DTYPES = {"float32": "f32", "bfloat16": "bf16"}
_Shapes = tuple[tuple[int, ...], ...]


def load(model: Any, device: str = "auto", dtype: str = "auto") -> tuple[BundleBackend, Tokenizer]:
    """A backend and its tokenizer from the folder of a bundle.

    Args:
        device: auto, cpu, or gpu for Intel's; auto is the CPU.
        dtype: auto, float32, bfloat16, or int8 where the bundle has it; auto is bfloat16 where the processor multiplies
            it natively, else float32.

    Raises:
        BadInput: the device is unknown or not there. ModelError: what is wrong with the bundle, or the dtype.
    """
    core = openvino.Core()
    name = _device(core, device)
    bundle, tokenizer = opened(model, dtype, dtypes_of)
    return BundleBackend(bundle, OpenVinoRunner(bundle, core, name, dtype)), tokenizer


def dtypes_of(bundle: Bundle) -> tuple[str, ...]:
    """What OpenVINO can compute a bundle in."""
    return (*_DTYPES, *([INT8_DTYPE] if bundle.int8 else []))


@dataclass(frozen=True)
class NodeTime:
    """One operation of a compiled graph: its name there, OpenVINO's type of it, and the seconds of the last run."""

    name: str
    type: str
    seconds: float


class OpenVinoRunner:
    """core_device: OpenVINO's name of it. dtype: auto, float32, bfloat16, or int8 where the bundle has it.

    In int8 the guided step's convolutions and linear layers are; all else is what auto is. profiled: every operation
    is timed, which `node_times` tells of, and a small model is slower for it.
    """

    name = "openvino"

    def __init__(self, bundle: Bundle, core: Any, core_device: str, dtype: str, profiled: bool = False) -> None:
        self._core, self._core_device = core, core_device
        self.device = core_device.lower()
        native = "BF16" in core.get_property(core_device, "OPTIMIZATION_CAPABILITIES")
        best = "bfloat16" if native else "float32"
        self.dtype = best if dtype == "auto" else dtype
        precision = _DTYPES[best if dtype == INT8_DTYPE else self.dtype]
        self._options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision, "PERF_COUNT": profiled}
        if core_device == "CPU":
            self._options["INFERENCE_NUM_THREADS"] = cpu_threads()
        self._models = {name: _read(core, bundle.folder / graph.file) for name, graph in bundle.graphs.items()}
        if dtype == INT8_DTYPE:
            assert bundle.int8 is not None  # or `load` had refused
            self._models["guided_step"] = _read(core, bundle.folder / bundle.int8)
        # how many more compilations for fixed shapes a graph may have
        self._fixed_left = {name: max(1, FIXED_BYTES // _bytes(bundle, name)) for name in bundle.graphs}
        self._requests: dict[tuple[str, _Shapes | None], Any] = {}
        self._latest: dict[str, Any] = {}

    @classmethod
    def on_cpu(cls, bundle: Bundle, dtype: str, profiled: bool = False) -> OpenVinoRunner:
        return cls(bundle, openvino.Core(), "CPU", dtype, profiled)

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        request = self._request(graph, inputs)
        request.infer(dict(inputs), share_inputs=True)
        self._latest[graph] = request
        return [output.data.copy() for output in request.output_tensors]

    def node_times(self, graph: str) -> list[NodeTime]:
        """Of the operations of the graph's last run, of a profiled runner."""
        executed = openvino.ProfilingInfo.Status.EXECUTED
        return [
            NodeTime(node.node_name, node.node_type, node.real_time.total_seconds())
            for node in self._latest[graph].get_profiling_info()
            if node.status == executed
        ]

    def settle(self) -> None:
        for graph, model in self._models.items():
            self._fixed_left[graph] = 0
            if (graph, None) not in self._requests:
                self._requests[graph, None] = self._compiled(model)

    def replace(self, graph: str, model: Any) -> None:
        """Runs another OpenVINO model in the place of a graph that has not been run yet."""
        self._models[graph] = model

    def _request(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Any:
        shapes = tuple(value.shape for value in inputs.values())
        if (graph, shapes) in self._requests:
            return self._requests[graph, shapes]
        model = self._models[graph]
        if self._fixed_left[graph]:
            self._fixed_left[graph] -= 1
            model = model.clone()
            model.reshape({name: list(value.shape) for name, value in inputs.items()})
            key: _Shapes | None = shapes
        elif (graph, None) in self._requests:
            return self._requests[graph, None]
        else:
            key = None
        self._requests[graph, key] = self._compiled(model)
        return self._requests[graph, key]

    def _compiled(self, model: Any) -> Any:
        return self._core.compile_model(model, self._core_device, self._options).create_infer_request()


def _device(core: Any, name: str) -> str:
    """OpenVINO's name of a device of ours."""
    if name not in ("auto", "cpu", "gpu"):
        raise BadInput(f"unknown device {name!r}: the openvino backend runs on auto, cpu or gpu (Intel's)")
    chosen = "GPU" if name == "gpu" else "CPU"
    found = [device.split(".")[0] for device in core.available_devices]
    if chosen not in found:
        raise BadInput(f"device {name!r} is not there: OpenVINO {openvino.__version__} finds {', '.join(found)}")
    return chosen


def _read(core: Any, path: Path) -> Any:
    try:
        return core.read_model(path)
    except RuntimeError as error:
        raise ModelError(f"{path} cannot be loaded: {' '.join(str(error).split())[-200:]}") from None


def _bytes(bundle: Bundle, name: str) -> int:
    graph = bundle.graphs[name]
    return sum(bundle.files[file].bytes for file in (graph.file, *graph.weights))
