"""Which device and precision PyTorch computes with, and that every thread does so on the device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch

from ..errors import BadInput
from ..quantize import KINDS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class _OnDevice(Protocol):
    _device: torch.device


_P = ParamSpec("_P")
_T = TypeVar("_T")
_S = TypeVar("_S", bound=_OnDevice)


def resolve_device(name: str) -> torch.device:
    """ "auto" is the GPU if PyTorch sees one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise BadInput(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"device {name!r} is not there: PyTorch {torch.__version__} sees {torch.cuda.device_count()} GPUs"
        )
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" is bfloat16 where the processor multiplies bfloat16 matrices natively, else float32."""
    if name == "auto":
        if device.type == "cuda":
            with torch.cuda.device(device):
                native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    if name not in DTYPES:
        raise BadInput(f"unknown dtype {name!r}: choose auto, {', '.join([*DTYPES, *KINDS])}")
    return DTYPES[name]


def with_index(device: torch.device) -> torch.device:
    """ "cuda" as "cuda:N", the present GPU of this thread: in another thread it may mean another one."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def on_its_device(method: Callable[Concatenate[_S, _P], _T]) -> Callable[Concatenate[_S, _P], _T]:
    """The method without gradients, and with the backend's GPU as the thread's own: every thread begins with GPU 0."""

    @wraps(method)
    def run(self: _S, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with torch.inference_mode(), torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext():
            return method(self, *args, **kwargs)

    return run
