"""Functions of tensors as one launch: captured in a CUDA graph for each set of shapes, and replayed from then on.

What is captured, kept and given up is decided in `CudaGraphs`, which knows no CUDA; `CudaRecorder` does the rest.

No shape is padded to another one. A padded row would cost a whole evaluation of the UNet in every step, where a capture
costs about two steps once, and little memory: working memory is of all graphs together, and inputs of one kind share
theirs.
"""

from __future__ import annotations

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# A function's inputs may be absent, and are then absent whenever its graph is replayed.
Function = Callable[..., tuple[Tensor, ...]]

# A set of shapes that loses its graph so often runs without: two that take turns would capture for ever.
_MOST_CAPTURES = 3
_SHAPES_KNOWN = 4096  # sets of shapes whose past is remembered


@dataclass(frozen=True)
class GraphBounds:
    """graphs: sets of shapes kept captured. nbytes: of their inputs and their working memory on the device."""

    graphs: int
    nbytes: int


class Recorder(Protocol):
    """Captures on one device, all captures in one working memory. Replays follow each other in one stream's order."""

    def record(self, function: Function, inputs: tuple[Tensor | None, ...]) -> Recording:
        """A recording of `function(*inputs)`, whose inputs and outputs stay where they are. May raise RuntimeError."""

    def nbytes(self) -> int:
        """Bytes of working memory, outputs included."""

    def renew(self) -> None:
        """Gives working memory back. No recording may be left."""


@dataclass(frozen=True)
class Recording:
    replay: Callable[[], None]
    outputs: tuple[Tensor, ...]


class CudaGraphs:
    """Calls functions through graphs, within bounds.

    The first call with a set of shapes runs as it is, and with it libraries choose algorithms and kernels are compiled;
    the second captures. What is run once, as for a picture of an odd size, is therefore never captured.

    Beyond `bounds.graphs` the graph that was not used for longest goes. Beyond `bounds.nbytes` all go, since working
    memory is given back only when none is left; what is beyond them alone is never captured again.
    """

    def __init__(self, recorder: Recorder, bounds: GraphBounds) -> None:
        self._recorder, self._bounds = recorder, bounds
        self._graphs: OrderedDict[tuple, _Graph] = OrderedDict()
        self._captures: OrderedDict[tuple, int] = OrderedDict()  # so far, of the shapes that were called
        self._inputs: weakref.WeakValueDictionary[tuple, _Input] = weakref.WeakValueDictionary()

    def __call__(self, name: str, function: Function, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """function(*inputs). `name` stands for the function: one name is always of one function.

        An input that is the very object of an earlier call is taken to be unchanged since.
        """
        key = (name, *(None if tensor is None else (tensor.shape, tensor.dtype) for tensor in inputs))
        if key not in self._graphs and not self._capture(key, function, inputs):
            return function(*inputs)
        self._graphs.move_to_end(key)
        return self._graphs[key].replay(inputs)

    def __len__(self) -> int:
        """Graphs that are captured."""
        return len(self._graphs)

    @property
    def nbytes(self) -> int:
        """Bytes on the device that graphs hold."""
        inputs = {id(one): one.memory for graph in self._graphs.values() for one in graph.inputs if one is not None}
        return self._recorder.nbytes() + sum(memory.nbytes for memory in inputs.values())

    def clear(self) -> None:
        """Gives all graphs up, and their memory."""
        self._graphs.clear()
        self._recorder.renew()

    def _capture(self, key: tuple, function: Function, inputs: tuple[Tensor | None, ...]) -> bool:
        """Whether there is a graph now."""
        captures = self._captures.get(key)
        self._captures[key] = 0 if captures is None else captures
        self._captures.move_to_end(key)
        if len(self._captures) > _SHAPES_KNOWN:
            self._captures.popitem(last=False)
        if captures is None or captures == _MOST_CAPTURES:
            return False
        own = [None if tensor is None else self._input(key[0], i, tensor) for i, tensor in enumerate(inputs)]
        _fill(own, inputs)
        parts = tuple(None if one is None else one.part(tensor) for one, tensor in zip(own, inputs, strict=True))
        try:
            self._graphs[key] = _Graph(self._recorder.record(function, parts), own)
        except RuntimeError as error:  # out of memory, or a call that cannot be captured
            self._captures[key] = _MOST_CAPTURES
            self.clear()
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            warnings.warn(f"{key[0]} runs without a CUDA graph for these shapes: {reason}", stacklevel=4)
            return False
        self._captures[key] += 1
        return self._keep_within_bounds(key)

    def _keep_within_bounds(self, newest: tuple) -> bool:
        """Whether the newest graph is still there."""
        while len(self._graphs) > self._bounds.graphs:
            self._graphs.popitem(last=False)
        if self.nbytes <= self._bounds.nbytes:
            return True
        if len(self._graphs) == 1:
            self._captures[newest] = _MOST_CAPTURES
        self.clear()
        return False

    def _input(self, name: str, position: int, tensor: Tensor) -> _Input:
        """Memory for an input. Those that differ in the number of rows alone share the largest that there is."""
        kind = (name, position, tensor.shape[1:], tensor.dtype)
        found = self._inputs.get(kind)
        if found is None or found.memory.shape[:1] < tensor.shape[:1]:
            self._inputs[kind] = found = _Input(torch.empty_like(tensor))
        return found


@dataclass(eq=False)
class _Input:
    """Memory on the device that graphs read, and the tensor that its first rows are a copy of."""

    memory: Tensor
    holds: weakref.ref[Tensor] | None = None

    def part(self, tensor: Tensor | None) -> Tensor:
        """What a graph reads in the place of this tensor."""
        assert tensor is not None
        return self.memory[: len(tensor)]


@dataclass(frozen=True)
class _Graph:
    recording: Recording
    inputs: Sequence[_Input | None]

    def replay(self, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """Outputs are copies, which no later replay changes."""
        _fill(self.inputs, inputs)
        self.recording.replay()
        return tuple(output.clone() for output in self.recording.outputs)


def _fill(memory: Sequence[_Input | None], inputs: Sequence[Tensor | None]) -> None:
    """Copies the inputs that are not there yet, those of a dtype in one launch."""
    copies: list[Tensor] = []
    originals: list[Tensor] = []
    for one, tensor in zip(memory, inputs, strict=True):
        if one is not None and tensor is not None and (one.holds is None or one.holds() is not tensor):
            one.holds = weakref.ref(tensor)
            copies.append(one.part(tensor))
            originals.append(tensor)
    if copies:
        torch._foreach_copy_(copies, originals)


class CudaRecorder:
    """Captures on a CUDA device, which must be the current one of the calling thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, function: Function, inputs: tuple[Tensor | None, ...]) -> Recording:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function(*inputs)  # libraries make their workspaces in the first call on a stream
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads, as those that check a server's pictures, may use the device meanwhile
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                outputs = function(*inputs)
        finally:
            torch.cuda.set_stream(current)  # which a capture that fails does not
        return Recording(graph.replay, outputs)

    def nbytes(self) -> int:
        segments = torch.cuda.memory_snapshot()
        return sum(one["total_size"] for one in segments if tuple(one["segment_pool_id"]) == tuple(self._pool))

    def renew(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()


def cuda_graphs(device: torch.device) -> CudaGraphs:
    """For one device: at most 64 graphs, in at most a quarter of its memory."""
    memory = torch.cuda.get_device_properties(device).total_memory
    return CudaGraphs(CudaRecorder(device), GraphBounds(graphs=64, nbytes=memory // 4))
