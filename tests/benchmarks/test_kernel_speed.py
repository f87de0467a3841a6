"""The kernels' contests under pytest-benchmark; skipped unless asked for, since a time is no pass or failure:

pytest -o addopts=--import-mode=importlib --benchmark-group-by=group tests/benchmarks/test_kernel_speed.py
"""

import pytest
import torch

from ip2p_fast.benchmarks.kernels import CONTESTS


@pytest.mark.parametrize("contender", ["ours", "eager", "copy"])
@pytest.mark.parametrize("name", CONTESTS)
def test_kernel(benchmark, name, contender):
    make, (dtype, *shape) = CONTESTS[name]
    contest = make(dtype, torch.device("cpu"), *shape)
    benchmark.group = contest.what
    with torch.inference_mode():
        benchmark(contest.contenders[contender])
