"""How many threads to compute with on a CPU: as many as there are cores for this process, whatever the machine has.

Libraries ask the machine, and in a container with two cores of a hundred they start a hundred threads that wait for
each other. A user's OMP_NUM_THREADS comes first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

_SYSTEM = Path("/sys")
_PROCESS = Path("/proc/self/cgroup")


def cpu_threads(system: Path = _SYSTEM, process: Path = _PROCESS) -> int:
    """Threads for this process: OMP_NUM_THREADS if set, else one a core it may run on, within its share of time.

    Two hardware threads of one core count as one: matrix products keep a core's units busy by themselves. Of a machine
    with several sockets, one socket's count: threads of two wait for each other's memory. The share is the quota of the
    process's control group (version 2 or 1) and of those around it, rounded up.

    system, process: /sys and /proc/self/cgroup.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return os.cpu_count() or 1
    cores = _cores_of_a_socket(system, sorted(os.sched_getaffinity(0)))
    return min([cores, *(math.ceil(quota) for quota in _quotas(system, process))])


def _cores_of_a_socket(system: Path, numbers: Sequence[int]) -> int:
    """Cores of the socket that has most of these CPUs.

    Sockets have memory, NUMA nodes, of their own. A virtual machine may call every CPU a package; then its nodes stand
    for the sockets.
    """
    cores = {number: _core(system, number) for number in numbers}
    nodes = {number: _node(system, number) for number in numbers}
    packages = {package for package, _ in cores.values()}
    if len(packages) <= len(set(nodes.values())):
        sockets = {number: package for number, (package, _) in cores.items()}
    else:
        sockets = nodes
    found: dict[str, set[tuple[str, str]]] = {}
    for number, socket in sockets.items():
        found.setdefault(socket, set()).add(cores[number])
    return max(len(members) for members in found.values())


def _node(system: Path, number: int) -> str:
    """The NUMA node of a CPU; where it is not told, one for all."""
    return next((path.name for path in (system / "devices" / "system" / "cpu" / f"cpu{number}").glob("node*")), "")


def _core(system: Path, number: int) -> tuple[str, str]:
    """What the hardware threads of one core have in common; where it is not told, each is a core."""
    topology = system / "devices" / "system" / "cpu" / f"cpu{number}" / "topology"
    try:
        package, core = ((topology / name).read_text().strip() for name in ("physical_package_id", "core_id"))
    except OSError:
        return "", str(number)
    return package, core


def _quotas(system: Path, process: Path) -> list[float]:
    """CPUs that each control group of the process may use, for those that limit it."""
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = system / "fs" / "cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):
            root, names = system / "fs" / "cgroup" / controllers, ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        inner = Path(path.lstrip("/"))
        # a container sees its own group as the root, or by its path on the host
        found += [_quota(root / place, names) for place in (inner, *inner.parents, Path())]
    return [quota for quota in found if quota is not None]


def _quota(group: Path, names: list[str]) -> float | None:
    try:
        numbers = [number for name in names for number in (group / name).read_text().split()]
        quota, period = (int(number) for number in numbers)
    except (OSError, ValueError):  # no such group, or "max"
        return None
    return quota / period if quota > 0 and period > 0 else None
