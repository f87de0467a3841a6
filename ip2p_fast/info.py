"""`ip2p-fast info`: what is installed, what was built and why not more, what this machine can run."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from . import __version__
from .backends.choice import BACKENDS, loader
from .build_info import build_info
from .errors import MissingExtra

# The packages whose versions decide what runs, and how.
PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "triton",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "numpy",
    "pillow",
)


def info(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show versions, what was built and why not more, devices, backends, and the kernels in use."""
    facts = describe()
    if as_json:
        print(json.dumps(facts))
        return
    rows = dict(_flat(facts))
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


def describe() -> dict[str, Any]:
    """All facts, ready for JSON. Never raises for what is absent: its place says why."""
    return {
        "ip2p-fast": __version__,
        "python": platform.python_version(),
        "devices": _devices(),
        "backends": {name: _backend(name) for name in BACKENDS},
        "kernels": _kernels(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _devices() -> dict[str, str]:
    devices = {"cpu": f"{_processor()}, {os.cpu_count()} threads"}
    try:
        import torch
    except ImportError as error:
        return devices | {"cuda": f"unknown: torch cannot be imported ({error})"}
    devices["cpu"] += f", {torch.backends.cpu.get_cpu_capability()}"
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return devices | {"cuda": f"none (torch {torch.__version__} is {built})"}
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        capability = f"sm_{found.major}{found.minor}"
        devices[f"cuda:{index}"] = f"{found.name}, {found.total_memory / 2**30:.0f} GiB, {capability}"
    return devices


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _backend(name: str) -> str:
    try:
        loader(name)
    except MissingExtra as error:
        return f"absent: {error}"
    except Exception as error:  # installed but broken: the cause is what helps
        return f"broken: {type(error).__name__}: {error}"
    return "available"


def _kernels() -> dict[str, Any]:
    try:
        from .kernels import status

        return status()
    except MissingExtra as error:
        return {**build_info(), "kernels": f"absent: {error}"}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _flat(facts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """{"a": {"b": 1}} -> ("a.b", "1")"""
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
