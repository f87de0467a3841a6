"""The ONNX Runtime backend: an exported bundle edits on a CPU or a GPU, with no PyTorch installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BadInput, MissingExtra, ModelError
from ..tokenizer import Tokenizer
from .bundle_backend import BundleBackend, opened

try:
    import onnxruntime
except ModuleNotFoundError as error:
    raise MissingExtra("the onnx backend", "onnx") from error

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_ERRORS_ONLY = 3  # ONNX Runtime's log level


def load(model: Any, device: str = "auto", dtype: str = "auto") -> tuple[BundleBackend, Tokenizer]:
    """A backend and its tokenizer from the folder of a bundle.

    Args:
        device: auto, cpu, cuda or cuda:N; auto is the GPU where ONNX Runtime can use one.
        dtype: auto, or the one that the bundle was exported with.

    Raises:
        BadInput: the device is unknown or not there. ModelError: what is wrong with the bundle, or another dtype.
    """
    index = _cuda_index(device)  # a wrong name is refused before gigabytes are read
    bundle, tokenizer = opened(model, dtype)
    return BundleBackend(bundle, OnnxRunner(bundle, index, required=device != "auto")), tokenizer


class OnnxRunner:
    """cuda: index of the GPU, or None for the CPU. required: no GPU is an error, else the CPU takes its place."""

    name = "onnx"

    def __init__(self, bundle: Bundle, cuda: int | None = None, required: bool = True) -> None:
        self.dtype = bundle.dtype
        self._sessions = {name: _session(bundle, name, cuda, required) for name in bundle.graphs}
        on_gpu = all(session.get_providers()[0] == _CUDA for session in self._sessions.values())
        self.device = f"cuda:{cuda}" if on_gpu else "cpu"

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        return self._sessions[graph].run(None, dict(inputs))


def _cuda_index(device: str) -> int | None:
    """The GPU that `device` asks for, None for the CPU; "auto" is GPU 0 if this ONNX Runtime was built for CUDA."""
    kind, _, index = device.partition(":")
    if device == "cpu" or (device == "auto" and _CUDA not in onnxruntime.get_available_providers()):
        return None
    if device not in ("auto", "cuda") and not (kind == "cuda" and index.isdecimal()):
        raise BadInput(f"unknown device {device!r}: choose auto, cpu, cuda or cuda:N")
    if _CUDA not in onnxruntime.get_available_providers():
        raise BadInput(
            f"device {device!r} is not there: ONNX Runtime {onnxruntime.__version__} is built without CUDA; choose "
            "cpu, or install onnxruntime-gpu in its place"
        )
    return int(index or 0)


def _session(bundle: Bundle, name: str, cuda: int | None, required: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    providers: list[Any] = [_CPU] if cuda is None else [(_CUDA, {"device_id": cuda}), _CPU]
    path = bundle.folder / bundle.graphs[name].file
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime's own errors have no common class
        raise ModelError(f"{path} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    if cuda is not None and required and session.get_providers()[0] != _CUDA:
        raise BadInput(
            f"device 'cuda:{cuda}' is not there: ONNX Runtime {onnxruntime.__version__} cannot use it; choose cpu"
        )
    return session
