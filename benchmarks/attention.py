"""paired_attention against what Prompt-to-Prompt is usually made of: explicit maps, and two plain attention calls.

The size is that of Stable Diffusion 1.5's first level at 512x512: 4,096 tokens, 8 heads of 40 channels, and the four
rows of one pair (source and target, with and without text), of which the targets use the maps of the sources.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ip2p_fast.kernels import paired_attention

from .bench import Bench
from .ceilings import matmul_ceiling
from .memory import own_peak_gb
from .results import Row
from .timing import Timing, interleave, ratio

SOURCES, TARGETS = (0, 2), (1, 3)
_ROUNDS = 12
_DTYPES = (torch.float32, torch.bfloat16)
_TARGETS = {"float32": {"explicit": 3.0, "sdpa": 1.25}}


@dataclass(frozen=True)
class Sizes:
    """Tokens, heads and channels a head; bytes that the maps of the four rows take."""

    tokens: int = 4096
    heads: int = 8
    dim: int = 40

    @property
    def bytes_of_maps(self) -> int:
        """As the explicit form has them: float32, a map a row."""
        return 4 * self.heads * self.tokens**2 * 4

    def inputs(self, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v [4, heads, tokens, dim] as a UNet has them: heads split off the channels."""
        rng = torch.Generator(device).manual_seed(0)
        wide = torch.randn(3, 4, self.tokens, self.heads * self.dim, device=device, generator=rng).to(dtype)
        q, k, v = wide.unflatten(-1, (self.heads, self.dim)).transpose(2, 3)
        return q, k, v


def measure(bench: Bench) -> list[Row]:
    """Time against both on a CPU, in one run, and the memory that the call takes beyond its result."""
    sizes = Sizes(tokens=64) if bench.quick else Sizes()
    return [*(row for dtype in _DTYPES for row in _speed(bench, sizes, dtype)), _memory(sizes)]


def explicit(q: Tensor, k: Tensor, v: Tensor, source_of_row: Tensor) -> Tensor:
    """Every row's logits, the sources' put in the place of the targets', softmax, product: the original's way."""
    logits = torch.einsum("rhnd,rhmd->rhnm", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("rhnm,rhmd->rhnd", logits[source_of_row].softmax(-1), v)


def two_calls(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Plain attention of the sources, then of the targets with the sources' queries and keys."""
    q, k = q[list(SOURCES)], k[list(SOURCES)]
    return tuple(F.scaled_dot_product_attention(q, k, v[list(rows)]) for rows in (SOURCES, TARGETS))  # type: ignore[return-value]


def _speed(bench: Bench, sizes: Sizes, dtype: torch.dtype) -> list[Row]:
    q, k, v = sizes.inputs(bench.device, dtype)
    shared = torch.tensor([0, 0, 2, 2], device=bench.device)
    kind = str(dtype).removeprefix("torch.")
    what = f"paired_attention, 4 rows, {sizes.heads} heads, {sizes.tokens} tokens, d = {sizes.dim}, {kind}"
    device = torch.device(bench.device)
    with torch.inference_mode():
        times = interleave(
            {
                "ours": lambda: paired_attention(q, k, v, shared),
                "explicit": lambda: explicit(q, k, v, shared),
                "sdpa": lambda: two_calls(q, k, v),
            },
            bench.rounds(_ROUNDS),
            watch=bench.watching(what),
        )
    detail: dict[str, Any] = {
        "gflop": 2 * 6 * sizes.heads * sizes.tokens**2 * sizes.dim / 1e9,  # two maps, three products each
        "ceiling": matmul_ceiling(device, dtype, bench.quick),
        "seconds": {name: timing.as_json() for name, timing in times.items()},
    }
    targets = _TARGETS.get(kind, {})
    against = {"explicit": "against explicit maps", "sdpa": "against two plain scaled_dot_product_attention calls"}
    return [
        _row(f"cpu.attention.paired.{kind}.vs_{peer}", f"{what}, {words}", times, peer, targets.get(peer), detail)
        for peer, words in against.items()
    ]


def _row(id: str, what: str, times: dict[str, Timing], peer: str, target: float | None, detail: dict[str, Any]) -> Row:
    faster = ratio(times[peer], times["ours"])
    return Row(id, faster.p50, "x", "higher", target, {"what": what, **detail, **faster.as_json()})


def _memory(sizes: Sizes) -> Row:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        extra = process.submit(_extra_bytes, sizes).result()
    what = "paired_attention, float32: peak memory beyond inputs and result, as a share of the explicit form's maps"
    detail = {"what": what, "extra_mb": extra / 1e6, "maps_mb": sizes.bytes_of_maps / 1e6}
    return Row("cpu.attention.paired.extra_memory", extra / sizes.bytes_of_maps, "share", "lower", 0.05, detail)


def _extra_bytes(sizes: Sizes) -> int:
    """How far the resident memory of this process rises during one call, the result not counted."""
    q, k, v = sizes.inputs("cpu", torch.float32)
    shared = torch.tensor([0, 0, 2, 2])
    paired_attention(q[:, :, :64], k[:, :, :64], v[:, :, :64], shared)  # loads libraries and starts threads
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is the present size
    before = own_peak_gb()
    result = paired_attention(q, k, v, shared)
    return max(0, round((own_peak_gb() - before) * 1e9) - result.numel() * result.element_size())
