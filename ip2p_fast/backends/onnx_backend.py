"""The ONNX Runtime backend: an exported bundle edits on a CPU or a GPU, with no PyTorch installed."""

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
    import onnxruntime
except ModuleNotFoundError as error:
    raise MissingExtra("the onnx backend", "onnx") from error

_TENSORRT, _CUDA, _CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
_ERRORS_ONLY = 3  # ONNX Runtime's log level
# kept in the bundle's folder, so that the next start does not build for minutes again
_ENGINE_CACHE = "onnxruntime-tensorrt"


@dataclass(frozen=True)
class Placement:
    """Where the graphs run: the provider that comes first, and the GPU's index, which the CPU has none of."""

    provider: str
    index: int = 0

    @property
    def device(self) -> str:
        kind = {_CPU: "cpu", _CUDA: "cuda", _TENSORRT: "tensorrt"}[self.provider]
        return kind if self.provider == _CPU else f"{kind}:{self.index}"


CPU = Placement(_CPU)


def load(model: Any, device: str = "auto", dtype: str = "auto") -> tuple[BundleBackend, Tokenizer]:
    """A backend and its tokenizer from the folder of a bundle.

    Args:
        device: auto, cpu, cuda, cuda:N, or tensorrt, tensorrt:N for ONNX Runtime's TensorRT provider, which builds its
            engines at the first call of each graph; auto is the GPU by CUDA where ONNX Runtime can use one.
        dtype: auto, or the one that the bundle was exported with.

    Raises:
        BadInput: the device is unknown or not there. ModelError: what is wrong with the bundle, or another dtype.
    """
    placement = _placement(device)  # a wrong name is refused before gigabytes are read
    bundle, tokenizer = opened(model, dtype)
    return BundleBackend(bundle, OnnxRunner(bundle, placement, required=device != "auto")), tokenizer


class OnnxRunner:
    """required: a GPU that cannot be used is an error, else the CPU takes its place."""

    name = "onnx"

    def __init__(self, bundle: Bundle, placement: Placement = CPU, required: bool = True) -> None:
        self.dtype = bundle.dtype
        sessions = {name: _session(bundle, name, placement, required) for name in bundle.graphs}
        if any(session.get_providers()[0] != placement.provider for session in sessions.values()):
            placement = CPU
        self.device = placement.device
        self._sessions = sessions
        self._bound = (
            {} if placement == CPU else {name: Bound(s, "cuda", placement.index) for name, s in sessions.items()}
        )

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        if graph in self._bound:
            return self._bound[graph].run(inputs)
        return self._sessions[graph].run(None, dict(inputs))

    def settle(self) -> None:
        """Nothing to do: sessions run any shape as it comes."""


class Bound:
    """A session whose inputs and outputs are bound to memory of a device.

    An input that is the array of the last call is not sent again: of a step, these are the texts, the image latents and
    the rows, all but a few kilobytes.
    """

    def __init__(self, session: Any, device_type: str, index: int) -> None:
        self._session, self._place = session, (device_type, index)
        self._outputs = [output.name for output in session.get_outputs()]
        self._sent: dict[str, tuple[np.ndarray, Any]] = {}

    def run(self, inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        binding = self._session.io_binding()
        for name, array in inputs.items():
            if name not in self._sent or self._sent[name][0] is not array:
                self._sent[name] = (array, onnxruntime.OrtValue.ortvalue_from_numpy(array, *self._place))
            binding.bind_ortvalue_input(name, self._sent[name][1])
        for name in self._outputs:
            binding.bind_output(name, *self._place)
        self._session.run_with_iobinding(binding)
        return [value.numpy() for value in binding.get_outputs()]


def _placement(device: str) -> Placement:
    """What `device` asks for; "auto" is GPU 0 if this ONNX Runtime was built for CUDA."""
    kind, _, index = device.partition(":")
    available = onnxruntime.get_available_providers()
    if device == "cpu" or (device == "auto" and _CUDA not in available):
        return CPU
    if device == "auto":
        return Placement(_CUDA)
    if kind not in ("cuda", "tensorrt") or (device != kind and not index.isdecimal()):
        raise BadInput(f"unknown device {device!r}: choose auto, cpu, cuda, cuda:N, tensorrt or tensorrt:N")
    provider = _CUDA if kind == "cuda" else _TENSORRT
    if provider not in available:
        raise BadInput(
            f"device {device!r} is not there: ONNX Runtime {onnxruntime.__version__} is built without "
            f"{'CUDA' if kind == 'cuda' else 'TensorRT'}; choose cpu, or install onnxruntime-gpu in its place"
        )
    return Placement(provider, int(index or 0))


def _session(bundle: Bundle, name: str, placement: Placement, required: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = cpu_threads()
    path = bundle.folder / bundle.graphs[name].file
    try:
        session = onnxruntime.InferenceSession(path, options, providers=_providers(bundle, placement))
    except Exception as error:  # ONNX Runtime's own errors have no common class
        raise ModelError(f"{path} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    if required and session.get_providers()[0] != placement.provider:
        version = onnxruntime.__version__
        raise BadInput(f"device {placement.device!r} is not there: ONNX Runtime {version} cannot use it; choose cpu")
    return session


def _providers(bundle: Bundle, placement: Placement) -> list[Any]:
    """The one asked for, then those that take what it leaves."""
    on = {"device_id": placement.index}
    engines = str(Path(bundle.folder, _ENGINE_CACHE))
    tensorrt = on | {
        "trt_fp16_enable": bundle.dtype == "float16",
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": engines,
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": engines,
    }
    providers = [(_TENSORRT, tensorrt), (_CUDA, on), _CPU]
    first = [_TENSORRT, _CUDA, _CPU].index(placement.provider)
    return providers[first:]
