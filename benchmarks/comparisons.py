"""Rows that compare: the ratio of two contenders with both their times, and a step's share of the machine's ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .ceilings import matmul_ceiling
from .results import Row
from .timing import Timing, ratio


def speedup(name: str, what: str, ours: Timing, diffusers: Timing, target: float | None = None, count: int = 1) -> Row:
    """How many times faster ours is: the median over rounds. `count` edits were made in a call of either."""
    spread = ratio(diffusers, ours)
    detail = {
        "what": what,
        **spread.as_json(),
        "ours_per_s": count / ours.spread.p50,
        "diffusers_per_s": count / diffusers.spread.p50,
        "ours_s": ours.as_json(),
        "diffusers_s": diffusers.as_json(),
    }
    return Row(name, spread.p50, "x", "higher", target, detail)


def share_of_ceiling(
    name: str, timing: Timing, gflop: float, device: torch.device, dtype: torch.dtype, quick: bool
) -> list[Row]:
    """NAME.throughput and NAME.ceiling_share: the UNet's arithmetic over the whole step's time, and as a share of what
    one large matrix product reaches on this machine in this run.
    """
    ceiling = matmul_ceiling(device, dtype, quick)
    reached = gflop / timing.spread.p50
    kind = str(dtype).removeprefix("torch.")
    detail = {"gflop": gflop, "dtype": kind, "ceiling": ceiling, "step_s": timing.as_json()}
    speed = {"what": f"the UNet's arithmetic over the time of our whole step ({kind})", **detail}
    share = {"what": "the same as a share of one large matrix product's, measured in the same run", **detail}
    return [
        Row(f"{name}.throughput", reached, "GFLOP/s", "higher", None, speed),
        Row(f"{name}.ceiling_share", reached / ceiling["gflops"], "share", "higher", None, share),
    ]


def against(
    name: str, what: str, ours: Timing, peer: Timing, detail: Mapping[str, Any], target: float | None = None
) -> Row:
    """How many times faster ours is than a peer, with whatever else tells how it came about."""
    spread = ratio(peer, ours)
    return Row(name, spread.p50, "x", "higher", target, {"what": what, **detail, **spread.as_json()})
