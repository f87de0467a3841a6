"""The fused operators against the same arithmetic in eager PyTorch, and against a copy of as many bytes.

`measure` returns the rows of a results file. For work on one kernel, tests/benchmarks/test_kernel_speed.py runs the
same contests under pytest-benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ip2p_fast import kernels

from .bench import Bench
from .ceilings import copy_ceiling, synchronizer
from .device_time import on_device
from .results import Row
from .timing import Timing, Work, interleave, ratio

EDITS, ROWS_AN_EDIT = 8, 3
_ROUNDS = 60
Step = Callable[..., object]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# channels and pixels a side at the levels of Stable Diffusion 1.5 for a 256-pixel picture
_NORMS = ((320, 32), (640, 16), (1280, 8))


@dataclass(frozen=True)
class Contest:
    """Contenders by name, "ours" among them, and the bytes that ours must move at least."""

    what: str
    contenders: Mapping[str, Work]
    bytes_moved: int

    def timed(self, bench: Bench, device: torch.device) -> dict[str, Timing]:
        watch = bench.watching(self.what)
        contenders = {name: on_device(work, device) for name, work in self.contenders.items()}
        return interleave(contenders, bench.rounds(_ROUNDS), 5, synchronizer(device), watch)


def measure(bench: Bench) -> list[Row]:
    """How much faster than eager PyTorch, and what share of the speed of a copy, on a CPU."""
    device = torch.device(bench.device)
    memory = copy_ceiling(device, bench.quick)["gb_per_s"]
    rows = []
    with torch.inference_mode():
        for name, dtype in _DTYPES.items():
            step = guided_step_contest(dtype, device, side=8 if bench.quick else 64)
            target = 3.0 if name == "fp32" else None
            rows += contest_rows(f"cpu.kernels.guided_step.{name}", step, step.timed(bench, device), memory, target)
        for name, dtype in _DTYPES.items():
            for channels, side in _NORMS[:1] if bench.quick else _NORMS:
                norm = group_norm_contest(dtype, device, channels, side)
                timings = norm.timed(bench, device)
                rows += contest_rows(f"cpu.kernels.group_norm_silu.{name}_{channels}x{side}", norm, timings, memory)
    return rows


def guided_step_contest(
    dtype: torch.dtype, device: torch.device, side: int = 64, edits: int = EDITS, **others: Step
) -> Contest:
    """Edits of 3 rows, latents 4 x side x side. others: further contenders by name, called as the operator is."""
    rows, latent = edits * ROWS_AN_EDIT, (4, side, side)
    eps = torch.randn(rows, *latent, device=device).to(dtype)
    row_start = torch.arange(0, rows + 1, ROWS_AN_EDIT, device=device)
    weights = torch.randn(rows, device=device)
    x, noise = torch.randn(2, edits, *latent, device=device)
    history = torch.randn(edits, 2, *latent, device=device)
    coefficients = torch.randn(edits, 7, device=device)
    arguments = (eps, row_start, weights, x, history, coefficients, noise)
    # rows, x, both histories and noise are read, x' and both histories written
    moved = eps.numel() * eps.element_size() + 7 * x.numel() * x.element_size()
    contenders: dict[str, Work] = {
        "ours": lambda: kernels.guided_step(*arguments),
        **{name: partial(other, *arguments) for name, other in others.items()},
        "eager": lambda: eager_guided_step(eps, weights, x, history, coefficients, noise),
        "copy": copy_of(moved, device),
    }
    return Contest(
        f"guided_step, {edits} edits x {ROWS_AN_EDIT} rows of 4x{side}x{side}, eps {dtype}", contenders, moved
    )


def group_norm_contest(dtype: torch.dtype, device: torch.device, channels: int, side: int, rows: int = 3) -> Contest:
    """32 groups, channels-last."""
    x = torch.randn(rows, channels, side, side, device=device).to(dtype).to(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, channels, device=device).to(dtype)
    moved = 2 * x.numel() * x.element_size()
    contenders: dict[str, Work] = {
        "ours": lambda: kernels.group_norm_silu(x, weight, bias, 32),
        "eager": lambda: F.silu(F.group_norm(x, 32, weight, bias)),
        "copy": copy_of(moved, device),
    }
    return Contest(f"group_norm_silu, {rows} x {channels} x {side} x {side}, {dtype}, channels-last", contenders, moved)


def eager_guided_step(
    eps: Tensor, weights: Tensor, x: Tensor, history: Tensor, coefficients: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """The arithmetic as one writes it when every edit has three rows: the least that eager PyTorch can do."""
    a, b0, b1, b2, c, p, q = coefficients.view(-1, 7, 1, 1, 1).unbind(1)
    guided = (eps.float() * weights.view(-1, 1, 1, 1)).view(len(x), -1, *x.shape[1:]).sum(1)
    d1, d2 = history.unbind(1)
    d = p * x + q * guided
    return a * x + b0 * d + b1 * d1 + b2 * d2 + c * noise, torch.stack((d, d1), dim=1)


def contest_rows(
    id: str,
    contest: Contest,
    timings: Mapping[str, Timing],
    memory: float,
    target: float | None = None,
    share_target: float | None = None,
) -> list[Row]:
    """ID.vs_eager and ID.of_copy with their targets; memory: GB/s of a copy beyond any cache."""
    ours, copy = timings["ours"], timings["copy"]
    faster, share = ratio(timings["eager"], ours), ratio(copy, ours)
    runs = kernels.status()["kernels"][contest.what.split(",")[0]]
    seconds = {name: timing.as_json() for name, timing in timings.items()}
    detail = {"ran": runs, "seconds": seconds, "bytes": contest.bytes_moved}
    speed = contest.bytes_moved / ours.spread.p50 / 1e9
    ceiling = {"gb_per_s": speed, "memory_copy_gb_per_s": memory}
    return [
        Row(
            f"{id}.vs_eager",
            faster.p50,
            "x",
            "higher",
            target,
            {"what": f"{contest.what}, against eager PyTorch", **detail, **faster.as_json()},
        ),
        Row(
            f"{id}.of_copy",
            share.p50,
            "share",
            "higher",
            share_target,
            {"what": f"{contest.what}, share of a copy's speed", **detail, **share.as_json(), **ceiling},
        ),
    ]


def copy_of(bytes_moved: int, device: torch.device) -> Work:
    """A copy that reads and writes as many bytes in all: it has the same chance of finding them in cache."""
    source = torch.zeros(bytes_moved // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


# name -> how a contest is made, and of what
CONTESTS: dict[str, tuple[Callable[..., Contest], tuple[Any, ...]]] = {
    **{f"guided_step-{name}": (guided_step_contest, (dtype,)) for name, dtype in _DTYPES.items()},
    **{
        f"group_norm_silu-{name}-{channels}x{side}": (group_norm_contest, (dtype, channels, side))
        for name, dtype in _DTYPES.items()
        for channels, side in _NORMS
    },
}
