"""The kernels on a GPU at Stable Diffusion 1.5's shapes for 512x512, bfloat16: device time, launches not counted.

Against eager PyTorch, a copy of as many bytes, and the guided step in CUDA C++ also against ours in Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ip2p_fast import kernels
from ip2p_fast.quantize import KINDS, runs_on

from .bench import Bench
from .ceilings import copy_ceiling, matmul_ceiling, synchronizer
from .comparisons import against
from .device_time import on_device
from .kernels import Contest, contest_rows, copy_of, group_norm_contest, guided_step_contest
from .results import Row
from .timing import Timing, Work, interleave

_ROUNDS = 30
_DTYPE = torch.bfloat16
_SHARE_OF_COPY = 0.8
_EDITS = (1, 16, 256)
# channels and pixels a side by level; rows of one edit and of 16
_LEVELS = ((320, 64), (640, 32), (1280, 16), (1280, 8))
_ROWS = (3, 48)


def measure(bench: Bench) -> list[Row]:
    """Rows gpu.kernels.NAME.SHAPE.FIGURE. Targets are on full-size shapes: 16 edits at once."""
    device = torch.device(bench.device)
    levels, rows_at_once, edits_at_once = (
        (_LEVELS[3:], _ROWS[:1], _EDITS[:1]) if bench.quick else (_LEVELS, _ROWS, _EDITS)
    )
    memory = copy_ceiling(device, bench.quick)["gb_per_s"]
    found = []
    with torch.inference_mode():
        for edits in edits_at_once:
            contest = guided_step_contest(_DTYPE, device, 64, edits, **_in_triton(device))
            found += _rows(bench, f"guided_step.{edits}_edits", contest, memory, edits == 16)
        for rows in rows_at_once:
            for channels, side in levels:
                contest = group_norm_contest(_DTYPE, device, channels, side, rows)
                name = f"group_norm_silu.{rows}x{channels}x{side}"
                found += _rows(bench, name, contest, memory, rows == 48 and side == 64)
            for channels, side in levels[:3]:
                found += _rows(
                    bench, f"layer_norm.{rows}x{channels}x{side}", _layer_norm(device, rows, channels, side), memory
                )
                found += _products(bench, device, rows, channels, side)
            for channels, side in levels:
                found += _convolutions(bench, device, rows, channels, side)
    return found


def _rows(bench: Bench, name: str, contest: Contest, memory: float, full: bool = False) -> list[Row]:
    timings = contest.timed(bench, torch.device(bench.device))
    return contest_rows(f"gpu.kernels.{name}", contest, timings, memory, share_target=_SHARE_OF_COPY if full else None)


def _in_triton(device: torch.device) -> dict[str, Callable[..., object]]:
    """The guided step in Triton, where the call is served by CUDA C++."""
    if device.type != "cuda" or kernels.status()["kernels"]["guided_step"]["cuda"] == "triton":
        return {}
    from ip2p_fast.kernels.triton_kernels.guided_step import guided_step

    return {"triton": guided_step}


def _layer_norm(device: torch.device, rows: int, channels: int, side: int) -> Contest:
    """With the sum before it: two tensors read, two written."""
    x, residual = torch.randn(2, rows, side * side, channels, device=device).to(_DTYPE)
    weight, bias = torch.randn(2, channels, device=device).to(_DTYPE)

    def eager() -> tuple[Tensor, Tensor]:
        summed = x + residual
        return F.layer_norm(summed, (channels,), weight, bias), summed

    moved = 4 * x.numel() * x.element_size()
    contenders: dict[str, Work] = {
        "ours": lambda: kernels.layer_norm(x, weight, bias, 1e-5, residual),
        "eager": eager,
        "copy": copy_of(moved, device),
    }
    return Contest(f"layer_norm, {rows} x {side * side} tokens of {channels}, {_DTYPE}, with a sum", contenders, moved)


def _products(bench: Bench, device: torch.device, rows: int, channels: int, side: int) -> list[Row]:
    """GEGLU against eager PyTorch, and 8-bit products of the same sizes against bfloat16."""
    tokens, inner = rows * side * side, 4 * channels
    x = torch.randn(tokens, channels, device=device).to(_DTYPE)
    weight, bias = (torch.randn(2 * inner, *shape, device=device).to(_DTYPE) for shape in ((channels,), ()))

    def eager() -> Tensor:
        value, gate = F.linear(x, weight, bias).chunk(2, -1)
        return value * F.gelu(gate)

    contenders: dict[str, Work] = {"ours": lambda: kernels.geglu(x, weight, bias), "eager": eager}
    for kind, dtype in KINDS.items():
        if runs_on(device, kind):
            contenders[kind] = _quantized(x, weight, bias, dtype)
    gflop = 2 * tokens * channels * 2 * inner / 1e9
    what = f"GEGLU, {tokens} tokens, {channels} -> 2 x {inner}, {_DTYPE}"
    name = f"gpu.kernels.geglu.{rows}x{channels}x{side}"
    timings, detail = _timed(bench, device, what, gflop, contenders)
    row = against(f"{name}.vs_eager", f"{what}, against eager PyTorch", timings["ours"], timings["eager"], detail)
    return [row, *_eights(name, what, timings, timings["ours"], detail)]


def _convolutions(bench: Bench, device: torch.device, rows: int, channels: int, side: int) -> list[Row]:
    """8-bit convolutions with bias and residual against cuDNN's in bfloat16, which leaves both to other passes."""
    x, residual = (
        torch.randn(rows, channels, side, side, device=device).to(_DTYPE).to(memory_format=torch.channels_last)
        for _ in range(2)
    )
    weight = torch.randn(channels, channels, 3, 3, device=device).to(_DTYPE).to(memory_format=torch.channels_last)
    bias = torch.randn(channels, device=device).to(_DTYPE)
    contenders: dict[str, Work] = {"library": lambda: F.conv2d(x, weight, bias, padding=1) + residual}
    for kind, dtype in KINDS.items():
        if runs_on(device, kind):
            contenders[kind] = _quantized_conv(x, weight, bias, residual, dtype)
    gflop = 2 * rows * side * side * 9 * channels * channels / 1e9
    what = f"convolution, {rows} x {channels} x {side} x {side}, 3x3, {_DTYPE}, bias and residual"
    name = f"gpu.kernels.conv2d.{rows}x{channels}x{side}"
    timings, detail = _timed(bench, device, what, gflop, contenders)
    return _eights(name, what, timings, timings["library"], detail)


def _timed(
    bench: Bench, device: torch.device, what: str, gflop: float, contenders: Mapping[str, Work]
) -> tuple[dict[str, Timing], dict[str, Any]]:
    """The times of what takes so many GFLOP, and the detail of their rows."""
    timings = interleave(
        {name: on_device(work, device) for name, work in contenders.items()},
        bench.rounds(_ROUNDS),
        synchronize=synchronizer(device),
        watch=bench.watching(what),
    )
    detail: dict[str, Any] = {"gflop": gflop, "ceiling": matmul_ceiling(device, _DTYPE, bench.quick)}
    detail["gflops"] = {name: gflop / timing.spread.p50 for name, timing in timings.items()}
    detail["seconds"] = {name: timing.as_json() for name, timing in timings.items()}
    return timings, detail


def _eights(name: str, what: str, timings: Mapping[str, Timing], plain: Timing, detail: Mapping[str, Any]) -> list[Row]:
    """A row for each 8-bit kind among the contenders."""
    return [
        against(f"{name}.{kind}_vs_bf16", f"{what}, in {kind} against bfloat16", timings[kind], plain, dict(detail))
        for kind in timings
        if kind in KINDS
    ]


def _quantized(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Work:
    """The product of rows that a norm has left in 8 bits."""
    rows, columns = kernels.quantize_rows(x, dtype), kernels.quantize_rows(weight, dtype)
    return lambda: kernels.quantized_linear(*rows, *columns, bias, _DTYPE, gated=True)


def _quantized_conv(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor, dtype: torch.dtype) -> Work:
    """The convolution of a picture that a norm has left in 8 bits."""
    pictures, _ = kernels.quantize_rows(x.permute(0, 2, 3, 1).contiguous(), dtype)
    taps = weight.permute(0, 2, 3, 1).contiguous()
    values, scale = kernels.quantize_rows(taps.flatten(1), dtype)
    eight, filters = pictures.permute(0, 3, 1, 2), values.view(taps.shape)
    return lambda: kernels.quantized_conv2d(eight, filters, scale, _DTYPE, bias, residual)
