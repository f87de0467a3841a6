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
    """What `load` found: the extension's module or None, the reason when None, and whether Triton serves CUDA."""

    extension: ModuleType | None
    why: str
    triton: bool

    def describe(self) -> dict[str, Any]:
        """The dict of `kernels.status()`, without the mode."""
        built = self.extension.build_info() if self.extension else {"cuda_arch": "", "isa": None}
        kind = "none" if not self.extension else "cuda" if built["cuda_arch"] else "cpu"
        cpu = f"c++ ({built['isa']})" if self.extension else "reference"
        cuda = "cuda c++" if kind == "cuda" else "triton" if self.triton else "reference"
        return {
            "extension": kind,
            "why": self.why,
            "isa": built["isa"],
            "build": built if self.extension else None,
            "kernels": {name: {"cpu": cpu, "cuda": cuda} for name in SCHEMAS},
        }


def load() -> Implementations:
    """Register the best implementation of every operator. Called once, after `schemas.define`."""
    for name in SCHEMAS:
        torch.library.impl(f"ip2p_fast::{name}", "default", checked(name, getattr(reference, name)))
    extension, why = _extension()
    on_cuda = extension is not None and bool(extension.build_info()["cuda_arch"])
    triton = not on_cuda and torch.version.cuda is not None and importlib.util.find_spec("triton") is not None
    if triton:
        for name in SCHEMAS:
            kernel = importlib.import_module(f"ip2p_fast.kernels.triton_kernels.{name}")
            torch.library.impl(f"ip2p_fast::{name}", "cuda", checked(name, getattr(kernel, name)))
    return Implementations(extension, why, triton)


def checked(name: str, implementation: Callable[..., Any]) -> Callable[..., Any]:
    """A Python implementation that checks its arguments first, as those in C++ do by themselves."""

    def run(*arguments: Any) -> Any:
        CHECKS[name](*arguments)
        return implementation(*arguments)

    return run


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
