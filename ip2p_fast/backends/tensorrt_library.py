"""TensorRT or TensorRT-RTX, whichever is installed: one interface under two names."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import MissingExtra

RTX = "tensorrt_rtx"
# kind -> modules to import, the last of which has the interface; the first whose modules are all there is taken
_PACKAGES = (
    ("tensorrt", ("tensorrt",)),
    (RTX, ("tensorrt_rtx",)),
    (RTX, ("tensorrt_rtx_libs", "tensorrt_rtx_bindings")),
)
_ERRORS_KEPT = 16


def _found() -> tuple[str, Any]:
    for kind, modules in _PACKAGES:
        if all(find_spec(name) is not None for name in modules):  # one that is there and broken is an error of its own
            return kind, [import_module(name) for name in modules][-1]
    raise MissingExtra("the tensorrt backend", "tensorrt")


KIND, trt = _found()
VERSION: str = trt.__version__
_ILogger: Any = trt.ILogger


class _Log(_ILogger):
    """Keeps errors for the message of an exception, instead of printing them."""

    def __init__(self) -> None:
        super().__init__()
        self._errors: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR) and len(self._errors) < _ERRORS_KEPT:
            self._errors.append(" ".join(msg.split()))

    def clear(self) -> None:
        self._errors.clear()

    def first(self) -> str:
        """The first error since `clear`, which the others follow from, short enough for one line."""
        return self._errors[0][:300] if self._errors else "it says nothing more"


LOG = _Log()
"""One for the process: TensorRT uses it for as long as there is anything of TensorRT's."""
