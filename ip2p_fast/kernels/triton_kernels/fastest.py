"""Which of several ways to compute the same thing is fastest on this GPU: measured once for each set of shapes.

The calls that measure are those before a CUDA graph is captured. Within a capture nothing can be timed, and what has
not been measured by then runs the first way, a library's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ip2p_fast.kernels.captured import captured
from ip2p_fast.kernels.captured import seconds as seconds_of

CALLS = 10
_found: dict[tuple[Any, ...], str] = {}


def fastest(what: str, ways: Mapping[str, Callable[..., Tensor]], arguments: tuple[Any, ...]) -> Tensor:
    """The result of the fastest of `ways`, of equal results and by name, on these arguments.

    A way that raises when it is measured is left out, unless it is the first.
    """
    if len(ways) == 1:
        return next(iter(ways.values()))(*arguments)
    key = (what, *(_shape(argument) for argument in arguments))
    if key not in _found:
        if not _can_measure(arguments):
            return next(iter(ways.values()))(*arguments)
        _found[key] = _measured(ways, arguments)
    return ways[_found[key]](*arguments)


def found() -> dict[str, str]:
    """What has been measured so far: operator and shapes, in words, to the way that runs."""
    return {" ".join(map(str, key)): name for key, name in _found.items()}


def seconds(way: Callable[..., Tensor], arguments: tuple[Any, ...]) -> float:
    """Of a call on the device, as it will be within a CUDA graph: the best of three times CALLS calls."""
    graph = captured(lambda: way(*arguments), CALLS)
    return min(seconds_of(graph, CALLS) for _ in range(3))


def _measured(ways: Mapping[str, Callable[..., Tensor]], arguments: tuple[Any, ...]) -> str:
    first, *others = ways
    times = {first: seconds(ways[first], arguments)}
    for name in others:
        try:
            times[name] = seconds(ways[name], arguments)
        except Exception:  # a chip of too little shared memory, say: the library's way serves all
            continue
    return min(times, key=times.__getitem__)


def _can_measure(arguments: tuple[Any, ...]) -> bool:
    return any(isinstance(x, Tensor) and x.is_cuda for x in arguments) and not torch.cuda.is_current_stream_capturing()


def _shape(argument: Any) -> Any:
    return (*argument.shape, argument.dtype, *argument.stride()) if isinstance(argument, Tensor) else argument
