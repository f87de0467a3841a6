"""TensorRT or TensorRT-RTX, whichever is installed: one interface under two names."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import MissingExtra

try:
    import tensorrt as trt

    KIND = "tensorrt"
except ModuleNotFoundError:
    try:
        import tensorrt_rtx as trt
    except ModuleNotFoundError:
        try:
            import_module("tensorrt_rtx_libs")  # loads the libraries that the bindings are of
            import tensorrt_rtx_bindings as trt
        except ModuleNotFoundError as error:
            raise MissingExtra("the tensorrt backend", "tensorrt") from error
    KIND = "tensorrt_rtx"

VERSION: str = trt.__version__


class Log(trt.ILogger):
    """Keeps errors for the message of an exception, instead of printing them."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.errors.append(" ".join(msg.split()))

    def last(self) -> str:
        """The last error, short enough for one line."""
        return self.errors[-1][-300:] if self.errors else "it says nothing more"
