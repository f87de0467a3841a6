"""What the machine can do at best, measured in the same run as the figures that are held against it."""

from __future__ import annotations

from typing import Any

import torch

from .random_model import Shape
from .timing import Timing, interleave

_REPEATS = 7


def matmul_ceiling(device: torch.device, dtype: torch.dtype, quick: bool = False) -> dict[str, float]:
    """FLOP/s of one large square product of random matrices: the best of a few, as a ceiling should be."""
    side = 256 if quick else 8192 if device.type == "cuda" else 4096
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = min(_timed(lambda: a @ b, device).seconds)
    return {"gflops": 2 * side**3 / best / 1e9, "side": side}


def copy_ceiling(device: torch.device, quick: bool = False) -> dict[str, float]:
    """Bytes a second of copying memory far larger than any cache, read and written counted."""
    size = 2**22 if quick else 2**31 if device.type == "cuda" else 2**28
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = min(_timed(lambda: target.copy_(source), device).seconds)
    return {"gb_per_s": 2 * size / best / 1e9, "bytes": size}


def synchronizer(device: torch.device) -> Any:
    """What waits for the work on a device: nothing on a CPU."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def unet_gflop(shape: Shape, latents: int, rows: int) -> float:
    """GFLOP of one evaluation of diffusers' UNet at latents x latents, multiplications and additions both counted."""
    return unet_gflop_by_module(shape, latents, rows)[""]


def unet_gflop_by_module(shape: Shape, latents: int, rows: int) -> dict[str, float]:
    """The same of each of its modules by name; "" is the whole."""
    from diffusers.models.attention_processor import AttnProcessor
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.inference_mode():
        unet = UNet2DConditionModel(**shape.unet)
        # attention as plain products, which the counter knows on every device
        unet.set_attn_processor(AttnProcessor())
        latents_in = torch.empty(rows, unet.config.in_channels, latents, latents)
        context = torch.empty(rows, 77, unet.config.cross_attention_dim)
        with FlopCounterMode(display=False) as counter:
            unet(latents_in, torch.empty(()), context)
    whole = f"{type(unet).__name__}."
    modules = {f"{name}.": sum(counts.values()) / 1e9 for name, counts in counter.get_flop_counts().items()}
    return {
        name.removeprefix(whole).removesuffix("."): gflop for name, gflop in modules.items() if name.startswith(whole)
    }


def _timed(work: Any, device: torch.device) -> Timing:
    return interleave({"": work}, rounds=_REPEATS, synchronize=synchronizer(device))[""]
