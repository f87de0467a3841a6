"""Attention on a GPU at Stable Diffusion 1.5's shapes for 512x512, bfloat16: device time, launches not counted.

SDPA's backends are asked one by one; the best of those that take a shape is the peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ip2p_fast import kernels

from .attention import Sizes, explicit
from .bench import Bench
from .ceilings import matmul_ceiling, synchronizer
from .comparisons import against
from .device_time import on_device
from .results import Row
from .timing import Timing, Work, interleave

_ROUNDS = 30
_ROWS, _HEADS = 3, 8
_DTYPE = torch.bfloat16
# queries, keys, channels a head: self-attention by level, then a text's
_SHAPES = ((4096, 4096, 40), (1024, 1024, 80), (256, 256, 160), (64, 64, 160), (4096, 77, 40), (1024, 77, 80))
_BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
_PAIRED_TARGET = 0.9


def measure(bench: Bench) -> list[Row]:
    """Rows gpu.attention.paired.FIGURE and gpu.attention.plain.QUERIESxKEYSxCHANNELS.vs_best_sdpa."""
    device = torch.device(bench.device)
    with torch.inference_mode():
        ceiling = matmul_ceiling(device, _DTYPE, bench.quick)
        rows = _paired(bench, device, ceiling)
        for shape in _SHAPES[3:4] if bench.quick else _SHAPES:
            rows.append(_plain(bench, device, ceiling, *shape))
    return rows


def _paired(bench: Bench, device: torch.device, ceiling: dict[str, float]) -> list[Row]:
    """Four rows of one pair with two maps; the peers are given the sources' queries and keys copied beforehand."""
    sizes = Sizes(tokens=64) if bench.quick else Sizes()
    q, k, v = sizes.inputs(bench.device, _DTYPE)
    of_row = torch.tensor([0, 0, 2, 2], device=device)
    what = f"paired_attention, 4 rows of 2 maps, {sizes.heads} heads, {sizes.tokens} tokens, d = {sizes.dim}, {_DTYPE}"
    contenders: dict[str, Work] = {
        "ours": lambda: kernels.paired_attention(q, k, v, of_row),
        "explicit": lambda: explicit(q, k, v, of_row),
        **_sdpa(q[of_row], k[of_row], v),
    }
    timings = _timed(bench, what, device, contenders)
    best = _best(timings, contenders.keys() - {"ours", "explicit"})
    gflop = 2 * 6 * sizes.heads * sizes.tokens**2 * sizes.dim / 1e9  # two maps, three products each
    detail = _detail(timings, gflop, ceiling)
    target = None if bench.quick else _PAIRED_TARGET
    return [
        against(
            "gpu.attention.paired.vs_best_sdpa",
            f"{what}, against plain attention of the four rows ({best})",
            timings["ours"],
            timings[best],
            detail,
            target,
        ),
        against(
            "gpu.attention.paired.vs_explicit",
            f"{what}, against explicit maps",
            timings["ours"],
            timings["explicit"],
            detail,
        ),
    ]


def _plain(bench: Bench, device: torch.device, ceiling: dict[str, float], queries: int, keys: int, dim: int) -> Row:
    """What a UNet calls, which chooses the fastest way that it measured, and each way by itself."""
    wide = torch.randn(_ROWS, queries, 3 * _HEADS * dim, device=device).to(_DTYPE)
    q, k, v = wide.unflatten(-1, (3, _HEADS, dim)).permute(2, 0, 3, 1, 4)  # as one projection makes them
    if keys != queries:
        k, v = torch.randn(2, _ROWS, _HEADS, keys, dim, device=device).to(_DTYPE)
    contenders: dict[str, Work] = {"ours": lambda: kernels.attention(q, k, v), **_triton(q, k, v), **_sdpa(q, k, v)}
    what = f"attention, {_ROWS} rows, {_HEADS} heads, {queries} x {keys} tokens, d = {dim}, {_DTYPE}"
    timings = _timed(bench, what, device, contenders)
    best = _best(timings, contenders.keys() - {"ours", "triton"})
    gflop = 4 * _ROWS * _HEADS * queries * keys * dim / 1e9
    return against(
        f"gpu.attention.plain.{queries}x{keys}x{dim}.vs_best_sdpa",
        f"{what}, against SDPA's {best}",
        timings["ours"],
        timings[best],
        _detail(timings, gflop, ceiling),
    )


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Work]:
    """SDPA's own choice, and each backend that takes these tensors."""
    works: dict[str, Work] = {"sdpa": lambda: F.scaled_dot_product_attention(q, k, v)}
    if q.is_cuda:
        for name, backend in _BACKENDS.items():
            call = _with(backend, q, k, v)
            try:
                call()
            except RuntimeError:  # no kernel of it for this shape
                continue
            works[name] = call
    return works


def _with(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v)

    return call


def _triton(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Work]:
    if not q.is_cuda:
        return {}
    from ip2p_fast.kernels.triton_kernels.attention import flash_attention

    return {"triton": lambda: flash_attention(q, k, v)}


def _timed(bench: Bench, what: str, device: torch.device, contenders: dict[str, Work]) -> dict[str, Timing]:
    works = {name: on_device(work, device) for name, work in contenders.items()}
    return interleave(works, bench.rounds(_ROUNDS), synchronize=synchronizer(device), watch=bench.watching(what))


def _best(timings: dict[str, Timing], peers: Iterable[str]) -> str:
    return min(peers, key=lambda name: timings[name].spread.p50)


def _detail(timings: dict[str, Timing], gflop: float, ceiling: dict[str, float]) -> dict[str, Any]:
    reached = {name: gflop / timing.spread.p50 for name, timing in timings.items()}
    return {
        "gflop": gflop,
        "ceiling": ceiling,
        "gflops": reached,
        "seconds": {name: timing.as_json() for name, timing in timings.items()},
    }
