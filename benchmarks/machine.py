"""What a figure was measured on: the machine, the versions, the commit. All of it read, none of it typed."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from ip2p_fast.info import describe

_SOURCES = ("csrc", "ip2p_fast", "benchmarks/*.py", "setup.py")


def describe_machine() -> dict[str, Any]:
    """Devices, memory, which kernels ran, and how busy the machine was: a load near its threads spoils timings."""
    import torch

    facts = describe()
    kernels = {name: facts["kernels"].get(name) for name in ("extension", "isa")}
    return {
        **facts["devices"],
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "system": platform.system(),
        "load": os.getloadavg()[0],
        **kernels,
    }


def versions() -> dict[str, str]:
    """Python's and those of the packages that decide what runs; an absent one says so."""
    facts = describe()
    return {"python": facts["python"], "ip2p-fast": facts["ip2p-fast"], **facts["versions"]}


def source_commit() -> str | None:
    """The commit of the checkout, "-dirty" if sources that are measured differ from it.

    Outside a checkout it is the environment's GIT_COMMIT, or None.
    """
    commit = _git("rev-parse", "--short", "HEAD")
    if not commit:
        return os.environ.get("GIT_COMMIT")
    return f"{commit}-dirty" if _git("status", "--porcelain", "--untracked-files=no", "--", *_SOURCES) else commit


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).resolve().parents[1]), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git
        return ""


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
