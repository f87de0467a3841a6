"""A function of tensors as one launch: captured in a CUDA graph for each set of shapes, replayed from then on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Sets of shapes kept captured. Each holds its inputs and outputs on the device; working memory is of all together.
GRAPHS_KEPT = 16
WARM_UPS = 3  # libraries choose algorithms and Triton compiles in the first calls, which cannot be captured


class GraphedFunction:
    """Calls `function(*tensors) -> tuple of tensors` through CUDA graphs.

    Inputs are copied into the graph's own memory, but for those that are the very object of the last call, and outputs
    are copied out of it.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self._function = function
        self._captured: OrderedDict[tuple, _Captured] = OrderedDict()
        # graphs run one at a time, and what one leaves in working memory no other reads
        self._working: Any = None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        key = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if key not in self._captured:
            self._captured[key] = self._capture(inputs)
            while len(self._captured) > GRAPHS_KEPT:
                self._captured.popitem(last=False)
        self._captured.move_to_end(key)
        return self._captured[key].replay(inputs)

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Captured:
        own = tuple(tensor.clone() for tensor in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._function(*own)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        if self._working is None:
            self._working = torch.cuda.graph_pool_handle()
        # other threads, as those that check a server's pictures, may use the device meanwhile
        with torch.cuda.graph(graph, pool=self._working, capture_error_mode="thread_local"):
            outputs = self._function(*own)
        return _Captured(graph, own, outputs, inputs)


@dataclass
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    latest: tuple[Tensor, ...]  # what `inputs` holds copies of

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for own, given, latest in zip(self.inputs, inputs, self.latest, strict=True):
            if given is not latest:
                own.copy_(given)
        self.latest = inputs
        self.graph.replay()
        return tuple(tensor.clone() for tensor in self.outputs)
