"""Builds the extension `ip2p_fast._C`, or goes on without it. The metadata is in pyproject.toml.

IP2P_FAST_BUILD=auto  CUDA where nvcc and a CUDA build of torch are found, else C++ where a compiler and torch are, else
                      none; said in one line, and a build that breaks falls back with a warning (the default)
               cuda, cpu, none  exactly that, or an error that says why not

No GPU is looked for. `ip2p_fast/_build.json` records the outcome. Building needs torch: --no-build-isolation.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import SetupError

CPU_SOURCES = ["csrc/bindings.cpp", *sorted(map(str, Path("csrc/cpu").glob("*.cpp")))]
CUDA_SOURCES = sorted(map(str, Path("csrc/cuda").glob("*.cu")))
# the kernels rely on vectorised selects, so floating-point traps and errno must not stand in the way
CXX_FLAGS = ["-O3", "-g0", "-std=c++20", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-Wno-unknown-pragmas"]


class BuildNative(build_ext):
    """`build_ext` that decides what to build when it runs, and hands the compiling to torch's own command."""

    def run(self) -> None:
        choice = os.environ.get("IP2P_FAST_BUILD", "auto")
        if choice not in ("auto", "cuda", "cpu", "none"):
            raise SetupError(f"IP2P_FAST_BUILD is {choice!r}; choose auto, cuda, cpu or none")
        if choice == "none":
            return self._record("none", "IP2P_FAST_BUILD=none")
        reasons = []
        for kind in ("cuda", "cpu") if choice == "auto" else (choice,):
            missing = _missing(kind)
            if not missing:
                try:
                    self._compile(kind)
                    return self._record(kind, f"IP2P_FAST_BUILD={choice}")
                except Exception as error:  # a broken compiler must not break pip install unless it was asked for
                    missing = f"the build failed: {str(error).splitlines()[0]} (pip install -v shows the log)"
                    self.warn(f"ip2p-fast: {kind}: {missing}")
            if choice != "auto":
                raise SetupError(f"IP2P_FAST_BUILD={choice} cannot be met: {missing}")
            reasons.append(f"{kind}: {missing}")
        self._record("none", "; ".join(reasons))

    def _compile(self, kind: str) -> None:
        from torch.utils import cpp_extension

        self.distribution.ext_modules = [_extension(kind)]
        compiler = cpp_extension.BuildExtension(self.distribution)
        for option in ("build_lib", "build_temp", "inplace", "editable_mode", "force", "debug"):
            setattr(compiler, option, getattr(self, option))
        compiler.ensure_finalized()
        self.extensions = compiler.extensions
        compiler.run()

    def _record(self, extension: str, why: str) -> None:
        if extension == "none":
            self.extensions = []
        folder = Path("ip2p_fast") if self.inplace else Path(self.build_lib, "ip2p_fast")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "_build.json").write_text(json.dumps({"extension": extension, "why": why}) + "\n")
        self.announce(f"ip2p-fast: extension {extension} ({why})", level=logging.INFO)


def _missing(kind: str) -> str:
    """What stands in the way of building `kind`; empty when nothing does."""
    try:
        import torch
        from torch.utils import cpp_extension
    except Exception as error:
        return f"torch does not import in the build environment ({error}): pip install --no-build-isolation"
    if not shutil.which(os.environ.get("CXX", "g++").split()[0]):
        return f"no C++ compiler: {os.environ.get('CXX', 'g++')} is not on PATH"
    if kind == "cuda" and torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if kind == "cuda" and not (cpp_extension.CUDA_HOME and Path(cpp_extension.CUDA_HOME, "bin/nvcc").exists()):
        return "nvcc is not found; set CUDA_HOME"
    return ""


def _extension(kind: str) -> Extension:
    from torch.utils import cpp_extension

    if kind == "cpu":
        return cpp_extension.CppExtension("ip2p_fast._C", CPU_SOURCES, extra_compile_args=CXX_FLAGS)
    # named here because torch would otherwise ask the GPUs of the build machine
    arch = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0;10.0+PTX")
    cxx = [*CXX_FLAGS, f'-DIP2P_CUDA_ARCH="{arch}"']
    flags = {"cxx": cxx, "nvcc": ["-O3", "-std=c++20", "--expt-relaxed-constexpr"]}
    return cpp_extension.CUDAExtension("ip2p_fast._C", CPU_SOURCES + CUDA_SOURCES, extra_compile_args=flags)


setup(ext_modules=[Extension("ip2p_fast._C", sources=[])], cmdclass={"build_ext": BuildNative})
