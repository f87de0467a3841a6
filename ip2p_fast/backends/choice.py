"""Which backend runs a model: the one that is asked for and no other, or the fastest that is installed."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..bundle import MANIFEST, is_bundle
from ..checkpoints import SHIPPED
from ..errors import BadInput, ModelError
from ..tokenizer import Tokenizer
from . import Backend

# name -> module with `load(model, device, dtype) -> (Backend, Tokenizer)`
BACKENDS = {
    "torch": ".torch_backend",
    "onnx": ".onnx_backend",
    "openvino": ".openvino_backend",
    "tensorrt": ".tensorrt_backend",
}
_ONLY_TORCH = ("float16",)  # what OpenVINO does not compute in on a CPU


def loader(name: str) -> Callable[..., Any]:
    """The `load(model, device, dtype, **options)` of a backend by name, or of the fastest for "auto".

    Raises BadInput for an unknown name and MissingExtra where the backend's packages are absent ("auto" does so when it
    loads). The function itself raises ModelError for a model that another backend runs.
    """
    if name != "auto" and name not in BACKENDS:
        raise BadInput(f"unknown backend {name!r}: choose auto or one of {', '.join(BACKENDS)}")
    if name != "auto":
        importlib.import_module(BACKENDS[name], __package__)
    return partial(_load, name)


def _load(
    name: str, model: Any, device: str = "auto", dtype: str = "auto", **options: Any
) -> tuple[Backend, Tokenizer]:
    place = SHIPPED.get(str(model), model)
    exported = is_bundle(place)
    has_weights = not exported or (Path(place).expanduser() / "model_index.json").is_file()
    if name == "torch" and not has_weights:
        raise ModelError(f"{model} is an exported bundle, which the torch backend cannot run: choose another or auto")
    if name not in ("auto", "torch") and not exported:
        raise ModelError(
            f"{model} is no exported bundle, it has no {MANIFEST}: choose backend auto or torch, or make a bundle of "
            "it with ip2p-fast export"
        )
    if name == "auto":
        name = fastest(device, dtype, has_weights) if exported else "torch"
    backend: tuple[Backend, Tokenizer] = importlib.import_module(BACKENDS[name], __package__).load(
        place if exported and name != "torch" else model, device=device, dtype=dtype, **options
    )
    return backend


def fastest(device: str, dtype: str, has_weights: bool) -> str:
    """Of the installed backends that can run an exported bundle, the one that was measured fastest.

    On a CPU that is openvino, then torch, then onnx (docs/benchmarks.md); on a GPU torch, then onnx. tensorrt has not
    been measured.

    Args:
        has_weights: the folder is a model's own, in which PyTorch can run too.
    """
    torch, onnx, openvino = (find_spec(name) is not None for name in ("torch", "onnxruntime", "openvino"))
    torch = torch and has_weights
    if device.startswith("cuda") or (device == "auto" and (torch or onnx) and cuda_devices()):
        return "torch" if torch else "onnx"
    if openvino and not (torch and dtype in _ONLY_TORCH):
        return "openvino"
    return "torch" if torch else "onnx"


def cuda_devices() -> int:
    """How many GPUs the CUDA driver finds; 0 where there is no driver. Loads nothing larger than the driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
