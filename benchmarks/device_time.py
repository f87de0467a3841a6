"""How long a GPU is at work for short calls: many of them in one launch."""

from __future__ import annotations

import torch

from ip2p_fast.kernels.captured import captured, seconds

from .timing import Told, Work

CALLS = 20


def on_device(work: Work, device: torch.device) -> Work:
    """On a GPU, what runs CALLS calls in one launch and tells the seconds of each; elsewhere the work itself."""
    if device.type != "cuda":
        return work
    graphs: list[torch.cuda.CUDAGraph] = []  # captured at the first call

    def replay() -> Told:
        if not graphs:
            graphs.append(captured(work, CALLS))
        return Told(seconds(graphs[0], CALLS))

    return replay
