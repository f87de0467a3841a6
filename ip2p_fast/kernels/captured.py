"""Short GPU work many times over as one CUDA graph, so that its launches are not what is timed."""

from __future__ import annotations

from collections.abc import Callable

import torch


def captured(work: Callable[[], object], calls: int) -> torch.cuda.CUDAGraph:
    """`calls` calls of `work`, after three that compile and choose. Raises RuntimeError for what cannot be captured."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        for _ in range(calls):
            work()
    return graph


def seconds(graph: torch.cuda.CUDAGraph, calls: int) -> float:
    """Of each of the calls, from one replay on the device."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / calls
