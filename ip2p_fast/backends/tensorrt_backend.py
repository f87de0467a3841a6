"""The TensorRT backend: an exported bundle edits on an NVIDIA GPU by engines, with no PyTorch installed.

What stays the same from step to step (texts, image latents, rows) is sent to the GPU once. From the second call of the
same shapes on, an engine is one launch of a CUDA graph.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BadInput, ModelError
from ..tokenizer import Tokenizer
from .bundle_backend import BundleBackend, opened
from .cuda_memory import CudaDevice
from .tensorrt_engine import Limits, build_engines, read_engines
from .tensorrt_library import KIND, VERSION, Log, trt

# Sets of shapes, over all graphs, whose memory on the GPU is kept.
SHAPES_KEPT = 16


def load(model: Any, device: str = "auto", dtype: str = "auto") -> tuple[BundleBackend, Tokenizer]:
    """A backend and its tokenizer from the folder of a bundle.

    Engines for this GPU are taken from the bundle's folder (`ip2p-fast export engines` puts them there). Where there
    are none, they are built and kept there, which takes minutes and is told in a warning.

    Args:
        device: auto, cuda or cuda:N.
        dtype: auto, or the one that the bundle was exported with.

    Raises:
        BadInput: the device is unknown or not there. ModelError: what is wrong with the bundle or its engines.
    """
    gpu = CudaDevice(_index(device))  # a GPU that is absent is told before gigabytes are read
    bundle, tokenizer = opened(model, dtype)
    found = read_engines(bundle, gpu.architecture)
    if found is None:
        warnings.warn(
            f"{bundle.folder} has no engines for {gpu.architecture}: building them takes minutes", stacklevel=2
        )
        build_engines(bundle, gpu.architecture, Limits.of(bundle))
        found = read_engines(bundle, gpu.architecture)
        assert found is not None
    limits, files = found
    engines = {name: _read(path) for name, path in files.items()}
    return BundleBackend(bundle, TensorRtRunner(bundle, engines, limits, gpu)), tokenizer


class TensorRtRunner:
    """engines: an engine of each graph, as the library's ICudaEngine. gpu: a CudaDevice."""

    name = "tensorrt"

    def __init__(self, bundle: Bundle, engines: Mapping[str, Any], limits: Limits, gpu: Any) -> None:
        self.device, self.dtype = f"cuda:{gpu.index}", bundle.dtype
        self._bundle, self._engines, self._limits, self._gpu = bundle, engines, limits, gpu
        self._calls: OrderedDict[Any, _Call] = OrderedDict()

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        key = (graph, tuple(value.shape for value in inputs.values()))
        if key not in self._calls:
            specs = self._bundle.graphs[graph].inputs
            for name, value in inputs.items():
                self._limits.require(graph, name, specs[name], value.shape, self._bundle.vae_scale)
            self._calls[key] = _Call(self._engines[graph], inputs, list(self._bundle.graphs[graph].outputs), self._gpu)
            while len(self._calls) > SHAPES_KEPT:
                self._calls.popitem(last=False)[1].free()
        self._calls.move_to_end(key)
        return self._calls[key].run(inputs)


class _Call:
    """One engine at one set of shapes, with its memory on the GPU."""

    def __init__(self, engine: Any, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], gpu: Any) -> None:
        self._gpu, self._context = gpu, _context(engine)
        for name, value in inputs.items():
            self._context.set_input_shape(name, value.shape)
        self._inputs = {name: gpu.empty(value.shape, value.dtype.name) for name, value in inputs.items()}
        self._outputs = {}
        for name in outputs:
            dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name
            self._outputs[name] = gpu.empty(tuple(self._context.get_tensor_shape(name)), dtype)
        for name, memory in {**self._inputs, **self._outputs}.items():
            self._context.set_tensor_address(name, memory.pointer)
        self._sent: dict[str, np.ndarray] = {}
        self._runs, self._graph = 0, None

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        for name, array in inputs.items():
            if self._sent.get(name) is not array:
                self._inputs[name].send(array)
                self._sent[name] = array
        self._runs += 1
        if self._runs == 1 or KIND == "tensorrt_rtx":  # which keeps a graph of its own
            self._enqueue()
        else:
            if self._graph is None:
                self._graph = self._gpu.capture(self._enqueue)
            self._gpu.launch(self._graph)
        fetched = [memory.fetch() for memory in self._outputs.values()]
        self._gpu.synchronize()
        return [array.copy() for array in fetched]

    def free(self) -> None:
        for memory in (*self._inputs.values(), *self._outputs.values()):
            memory.free()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._gpu.stream):
            raise RuntimeError(f"{KIND} {VERSION} could not run an engine")


def _context(engine: Any) -> Any:
    if not hasattr(trt, "CudaGraphStrategy"):
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(config)


def _read(path: Path) -> Any:
    log = Log()
    engine = trt.Runtime(log).deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ModelError(f"{path} cannot be loaded by {KIND} {VERSION} here: {log.last()}")
    return engine


def _index(device: str) -> int:
    kind, _, index = device.partition(":")
    if device in ("auto", "cuda"):
        return 0
    if kind != "cuda" or not index.isdecimal():
        raise BadInput(f"unknown device {device!r}: the tensorrt backend runs on auto, cuda or cuda:N")
    return int(index)
