"""How much arithmetic a training sample is, and how much of it a device can do: for samples a second as a share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

_REPEATS = 5
_TOKENS = 77


def training_flops(config: Mapping[str, Any], width: int, height: int) -> float:
    """FLOPs of the UNet for one sample forwards and backwards, latents of this width and height.

    Forwards is counted, on no device; backwards is twice as much. What checkpointing computes again is not work done.
    """
    with torch.device("meta"), torch.inference_mode():
        unet = UNet2DConditionModel(**_settings(config))
        # attention as plain products, which the counter knows on every device
        unet.set_attn_processor(AttnProcessor())
        latents = torch.empty(1, config["in_channels"], height, width)
        context = torch.empty(1, _TOKENS, config["cross_attention_dim"])
        return 3.0 * _counted(lambda: unet(latents, torch.empty(()), context))


def encoding_flops(config: Mapping[str, Any], width: int, height: int) -> float:
    """FLOPs of the autoencoder for the two pictures of a sample, of this width and height in pixels."""
    with torch.device("meta"), torch.inference_mode():
        vae = AutoencoderKL(**_settings(config))
        for module in vae.modules():
            if hasattr(module, "set_processor"):
                module.set_processor(AttnProcessor())
        return _counted(lambda: vae.encode(torch.empty(2, 3, height, width)))


def device_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of one large square product of matrices: the best of a few."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    a @ b
    taken = []
    for _ in range(_REPEATS):
        _wait(device)
        begun = time.perf_counter()
        a @ b
        _wait(device)
        taken.append(time.perf_counter() - begun)
    return 2.0 * side**3 / min(taken)


class Meter:
    """Times steps, pauses left out.

    samples of a step, flops of a sample, rate of all devices together in FLOP/s.
    """

    def __init__(self, samples: int, flops: float, rate: float) -> None:
        self._samples, self._flops, self._rate = samples, flops, rate
        self._begun, self._steps = time.perf_counter(), 0

    def step(self) -> None:
        """One more is done."""
        self._steps += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile is no training."""
        stopped = time.perf_counter()
        try:
            yield
        finally:
            self._begun += time.perf_counter() - stopped

    def taken(self) -> dict[str, float]:
        """Samples a second since the last call, and the share of the rate that they make."""
        now = time.perf_counter()
        a_second = self._steps * self._samples / (now - self._begun)
        self._begun, self._steps = now, 0
        return {"samples_per_second": a_second, "share_of_flops": a_second * self._flops / self._rate}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _counted(work: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
