"""Which implementation each operator has on each device: registers them with PyTorch's dispatcher, and reports."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from ip2p_fast.build_info import build_info
from ip2p_fast.kernels import reference
from ip2p_fast.kernels.schemas import CHECKS, SCHEMAS


@dataclass(frozen=True)
class Implementations:
    """What `load` found: the extension's module or None, the reason when None, and the operators Triton serves."""

    extension: ModuleType | None
    why: str
    triton: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """The dict of `kernels.status()`, without the mode."""
        built = self.extension.build_info() if self.extension else {"cuda_arch": "", "isa": None}
        kind = "none" if not self.extension else "cuda" if built["cuda_arch"] else "cpu"
        runs = {
            name: {
                "cpu": f"c++ ({built['isa']})" if _has_kernel(name, "CPU") else "reference",
                "cuda": "triton" if name in self.triton else "cuda c++" if _has_kernel(name, "CUDA") else "reference",
            }
            for name in SCHEMAS
        }
        return {
            "extension": kind,
            "why": self.why,
            "isa": built["isa"],
            "build": built if self.extension else None,
            "kernels": runs,
        }


def load() -> Implementations:
    """Register the best implementation of every operator. Called once, after `schemas.define`."""
    for name in SCHEMAS:
        torch.library.impl(f"ip2p_fast::{name}", "default", checked(name, getattr(reference, name)))
    extension, why = _extension()
    triton: tuple[str, ...] = ()
    if torch.version.cuda is not None and importlib.util.find_spec("triton") is not None:
        triton = tuple(name for name in SCHEMAS if not _has_kernel(name, "CUDA"))
    for name in triton:
        kernel = importlib.import_module(f"ip2p_fast.kernels.triton_kernels.{name}")
        torch.library.impl(f"ip2p_fast::{name}", "cuda", checked(name, getattr(kernel, name)))
    return Implementations(extension, why, triton)


def checked(name: str, implementation: Callable[..., Any]) -> Callable[..., Any]:
    """A Python implementation that checks its arguments first, as those in C++ do by themselves."""

    def run(*arguments: Any) -> Any:
        CHECKS[name](*arguments)
        return implementation(*arguments)

    return run


def _has_kernel(name: str, device: str) -> bool:
    """Whether the dispatcher holds an implementation for this very device, beside the one for all."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"ip2p_fast::{name}", device)


def _extension() -> tuple[ModuleType | None, str]:
    built = build_info()
    if built["extension"] == "none":  # also where an older build's module still lies in the tree
        return None, built["why"]
    try:
        return importlib.import_module("ip2p_fast._C"), built["why"]
    except ImportError as error:
        # most often built against another torch: the package still works, slower, so say why and go on
        why = f"the extension is built but does not load: {str(error).splitlines()[0]}"
        warnings.warn(f"ip2p_fast: {why}; reinstall the package to rebuild it", RuntimeWarning, stacklevel=2)
        return None, why
