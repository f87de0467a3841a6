"""The TensorRT backend: an exported bundle edits on an NVIDIA GPU by engines, with no PyTorch installed.

What stays the same from step to step (texts, image latents, rows) is sent to the GPU once. From the second call of the
same shapes on, an engine is one launch of a CUDA graph. No engine has been run on a GPU yet.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle, Graph
from ..errors import BadInput, ModelError
from ..tokenizer import Tokenizer
from .bundle_backend import BundleBackend, opened
from .cuda_memory import CapturedWork, CudaDevice, DeviceMemory
from .tensorrt_engine import Limits, build_engines, read_engines
from .tensorrt_library import KIND, LOG, RTX, VERSION, trt

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
        BadInput: the device is unknown, not there, or none that engines can be built for; or it has too little memory.
        ModelError: what is wrong with the bundle or its engines.
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
    """engines: an engine of each graph, as the library's ICudaEngine.

    They run one after the other, so that all work in the same memory; it is what the largest shapes need, taken at
    once.
    """

    name = "tensorrt"

    def __init__(self, bundle: Bundle, engines: Mapping[str, Any], limits: Limits, gpu: CudaDevice) -> None:
        self.device, self.dtype = f"cuda:{gpu.index}", bundle.dtype
        self._bundle, self._engines, self._limits, self._gpu = bundle, engines, limits, gpu
        self._working = DeviceMemory(max(1, *(engine.device_memory_size_v2 for engine in engines.values())))
        self._calls: OrderedDict[Any, _Call] = OrderedDict()
        self._latest: dict[str, Any] = {}

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """As Runner's. Raises BadInput for shapes that the engines do not take."""
        self._gpu.use()  # the calling thread may be another than the last
        key = (graph, tuple(value.shape for value in inputs.values()))
        if key not in self._calls:
            self._limits.require(self._bundle, graph, inputs)
            self._calls[key] = _Call(self._engines[graph], self._bundle.graphs[graph], inputs, self._working, self._gpu)
            while len(self._calls) > SHAPES_KEPT:
                self._calls.popitem(last=False)
        self._calls.move_to_end(key)
        if self._latest.get(graph) != key:
            self._calls[key].forget()  # an array may have changed since it was sent here
        self._latest[graph] = key
        return self._calls[key].run(inputs)

    def settle(self) -> None:
        """Nothing to do: engines are built before."""


class _Call:
    """One engine at one set of shapes, with its inputs and outputs on the GPU."""

    def __init__(
        self, engine: Any, graph: Graph, inputs: Mapping[str, np.ndarray], working: DeviceMemory, gpu: CudaDevice
    ) -> None:
        self._gpu, self._context = gpu, _context(engine)
        self._context.set_device_memory(working.pointer, working.nbytes)
        for name, value in inputs.items():
            self._context.set_input_shape(name, value.shape)
        self._inputs = {name: gpu.empty(value.shape, graph.inputs[name].dtype) for name, value in inputs.items()}
        self._outputs = {
            name: gpu.empty(tuple(self._context.get_tensor_shape(name)), spec.dtype)
            for name, spec in graph.outputs.items()
        }
        for name, array in {**self._inputs, **self._outputs}.items():
            self._context.set_tensor_address(name, array.pointer)
        self._sent: dict[str, np.ndarray] = {}
        self._has_run = False
        self._captured: CapturedWork | None = None

    def forget(self) -> None:
        """Sends every input in the next run."""
        self._sent.clear()

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        for name, array in inputs.items():
            if self._sent.get(name) is not array:
                self._inputs[name].send(array)
                self._sent[name] = array
        if not self._has_run or KIND == RTX:  # which keeps a graph of its own
            self._enqueue()
        else:
            if self._captured is None:
                self._captured = self._gpu.capture(self._enqueue)
            self._captured.launch()
        self._has_run = True
        fetched = [array.fetch() for array in self._outputs.values()]
        self._gpu.synchronize()
        return [array.copy() for array in fetched]

    def _enqueue(self) -> None:
        LOG.clear()
        if not self._context.execute_async_v3(self._gpu.stream):
            raise RuntimeError(f"{KIND} {VERSION} could not run an engine: {LOG.first()}")


def _context(engine: Any) -> Any:
    """An execution context that is given the memory it works in."""
    given = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if KIND != RTX:
        return engine.create_execution_context(given)
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(given)
    config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(config)


def _read(path: Path) -> Any:
    LOG.clear()
    engine = trt.Runtime(LOG).deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ModelError(f"{path} cannot be loaded by {KIND} {VERSION} here: {LOG.first()}")
    return engine


def _index(device: str) -> int:
    kind, _, index = device.partition(":")
    if device in ("auto", "cuda"):
        return 0
    if kind != "cuda" or not index.isdecimal():
        raise BadInput(f"unknown device {device!r}: the tensorrt backend runs on auto, cuda or cuda:N")
    return int(index)
