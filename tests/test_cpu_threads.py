"""Threads follow the cores and the share of time that the process has, read from folders like the kernel's."""

import os

import pytest

from ip2p_fast.cpu_threads import cpu_threads


@pytest.fixture
def threads(tmp_path, monkeypatch):
    """cpu_threads on a machine of these (package, core) by CPU, with files below /sys/fs/cgroup."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def of(cpus, group="0::/", files=(), allowed=None, nodes=()):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(len(cpus)) if allowed is None else allowed))
        for number, (package, core) in enumerate(cpus):
            topology = tmp_path / "devices/system/cpu" / f"cpu{number}" / "topology"
            topology.mkdir(parents=True, exist_ok=True)
            (topology / "physical_package_id").write_text(f"{package}\n")
            (topology / "core_id").write_text(f"{core}\n")
        for number, node in enumerate(nodes):
            (tmp_path / "devices/system/cpu" / f"cpu{number}" / f"node{node}").mkdir()
        for name, text in dict(files).items():
            path = tmp_path / "fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "cgroup").write_text(group)
        return cpu_threads(tmp_path, tmp_path / "cgroup")

    return of


EIGHT = [(0, core) for core in range(8)]


def test_one_a_core(threads):
    assert threads(EIGHT) == 8


def test_hardware_threads_of_a_core_count_as_one_and_packages_apart(threads):
    assert threads([(0, 0), (0, 0), (0, 1), (0, 1), (1, 0), (1, 0)]) == 3


@pytest.mark.parametrize(
    ("cpus", "nodes", "expected"),
    [
        ([(0, 0), (0, 1), (0, 2), (1, 0)], (0, 0, 0, 1), 3),  # two sockets: the one with more
        ([(0, 0), (0, 0), (1, 0), (1, 0)], (0, 0, 1, 1), 1),
        ([(0, 0), (0, 1), (0, 2), (0, 3)], (0, 0, 1, 1), 4),  # one socket in two parts
        ([(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)], (0, 0, 1, 1, 2, 2, 3, 3), 4),
        ([(0, 0), (1, 0), (2, 0), (3, 0)], (0, 0, 0, 0), 4),  # a virtual machine whose CPUs are all packages
        ([(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)], (0, 0, 0, 1, 1), 3),
    ],
)
def test_cores_of_one_socket_only(threads, cpus, nodes, expected):
    assert threads(cpus, nodes=nodes) == expected


def test_only_cores_that_the_process_may_run_on(threads):
    assert threads(EIGHT, allowed={2, 5}) == 2


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/", {"cpu.max": "max 100000\n"}, 8),
        ("0::/", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/", {"cpu.max": "150000 100000\n"}, 2),  # rounded up
        ("0::/", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/pod/box", {"pod/cpu.max": "300000 100000\n", "pod/box/cpu.max": "max 100000\n"}, 3),  # of one around it
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("2:cpu,cpuacct:/a", {"cpu,cpuacct/cpu.cfs_quota_us": "1000\n", "cpu,cpuacct/cpu.cfs_period_us": "1000\n"}, 1),
        ("3:memory:/", {"cpu.max": "100000 100000\n"}, 8),  # not a group of CPUs
    ],
)
def test_no_more_than_the_share_of_time(threads, group, files, expected):
    assert threads(EIGHT, group, files) == expected


def test_what_the_user_asks_for_comes_first(threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert cpu_threads() == 5


def test_a_machine_that_tells_nothing_has_a_core_a_cpu(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert cpu_threads(tmp_path, tmp_path / "absent") == 3
