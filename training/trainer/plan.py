"""What a training costs before it is begun: time, money and memory, by arithmetic from what was measured or is assumed.

    a sample's work     F = 3 forward(UNet) (4 forward with checkpointing) + encode(two pictures)        FLOPs
    a device's rate     R = peak x utilization
    wall-clock          S F / (N R),  S = steps x batch x accumulation x N
    memory of weights   trained: 4 bytes each for weight, gradient and average, 8 for moments (2 in 8 bits); frozen: 4

Left out: reading and decoding, which overlap; the exchange of gradients, which a measured utilization of several
devices has in it and one of a single device has not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from ip2p_fast.benchmarks.memory import own_peak_gb
from ip2p_fast.errors import BadInput

from .adapters import add_adapters
from .batches import Batch
from .loss import diffusion_loss
from .networks import Networks, accelerator_for
from .parts import Parts, load_parts
from .recipe import DTYPES, Recipe
from .throughput import device_rate, encoding_flops, training_flops

SHAPE = "sd15"
"""Stands for a model of Stable Diffusion 1.5's size with random weights, which time and memory do not depend on."""


@dataclass(frozen=True)
class Sizes:
    """What a model and a recipe come to. flops: of a sample; trained, frozen: numbers of weights."""

    flops: float
    trained: int
    frozen: int


@dataclass(frozen=True)
class Measured:
    """Of training steps on the device at hand, encoding left out.

    utilization of peak, its FLOP/s in a product of matrices; peak_memory in bytes, of the GPU or of the process.
    """

    seconds_per_sample: float
    utilization: float
    peak: float
    peak_memory: int
    device: str


@dataclass(frozen=True)
class Plan:
    """What it comes to; bytes are of one device, activations left out; cost in the price's currency."""

    samples: int
    tflop_per_sample: float
    seconds: float
    device_hours: float
    cost: float | None
    weight_bytes: float


def sizes_of(model: str, recipe: Recipe) -> Sizes:
    """Counts on no device. model: `SHAPE`, or as of `load_parts`."""
    unet_config, vae, text = _configs(model)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config)
        if recipe.lora:
            add_adapters(unet, recipe.lora, grown=True)
        frozen = _count(AutoencoderKL(**vae)) + _count(CLIPTextModel(CLIPTextConfig(**text)))
    trained = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    latents = recipe.resolution // 2 ** (len(vae["block_out_channels"]) - 1)
    unet_flops = training_flops(unet_config, latents, latents) * (4 / 3 if recipe.checkpointing else 1)
    return Sizes(
        flops=unet_flops + encoding_flops(vae, recipe.resolution, recipe.resolution),
        trained=trained,
        frozen=frozen + _count(unet) - trained,
    )


def plan_of(
    recipe: Recipe, sizes: Sizes, devices: int, rate: float, price: float | None = None, sharded: bool = False
) -> Plan:
    """rate: FLOP/s that a device sustains. sharded: weights, gradients, average and moments are divided (FSDP).

    Raises:
        BadInput: fewer than one device, or a rate or price that is not above 0.
    """
    if devices < 1:
        raise BadInput(f"--gpus is {devices}: at least 1 is needed")
    if not rate > 0:
        raise BadInput(f"a device that sustains {rate} FLOP/s never ends: --peak-tflops and --utilization are above 0")
    if price is not None and not price >= 0:
        raise BadInput(f"--price is {price}: it must be 0 or more")
    samples = recipe.steps * recipe.batch * recipe.accumulation * devices
    seconds = samples * sizes.flops / (devices * rate)
    hours = seconds * devices / 3600
    each = 4 + 4 + 4 + (2 if recipe.adam8bit else 8)
    return Plan(
        samples=samples,
        tflop_per_sample=sizes.flops / 1e12,
        seconds=seconds,
        device_hours=hours,
        cost=None if price is None else price * hours,
        weight_bytes=sizes.trained * each / (devices if sharded else 1) + 4.0 * sizes.frozen,
    )


def measure(model: str, recipe: Recipe, steps: int) -> Measured:
    """Takes `steps` optimizer steps of one batch each on random latents, after one to warm up.

    Raises:
        BadInput: fewer than 1 step, or a model that cannot be loaded.
    """
    if steps < 1:
        raise BadInput(f"--measure is {steps}: at least 1 step is needed")
    parts = _random_parts() if model == SHAPE else load_parts(model, recipe.prediction)
    networks = Networks(parts, recipe, accelerator_for(recipe, None))
    device = networks.accelerator.device
    batch = random_batch(parts, recipe, device)

    def step(number: int) -> None:
        networks.accelerator.backward(diffusion_loss(networks.unet, parts.schedule, batch, recipe))
        networks.optimizer.step()
        networks.optimizer.zero_grad()
        networks.average.update(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step(0)
    begun = time.perf_counter()
    for number in range(1, steps + 1):
        step(number)
    seconds = (time.perf_counter() - begun) / (steps * recipe.batch)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else round(own_peak_gb() * 1e9)
    latents = recipe.resolution // parts.factor
    done = training_flops(dict(parts.unet.config), latents, latents) * (4 / 3 if recipe.checkpointing else 1)
    rate = device_rate(device, DTYPES[recipe.precision])
    return Measured(seconds, done / seconds / rate, rate, peak, device.type)


def random_batch(parts: Parts, recipe: Recipe, device: torch.device) -> Batch:
    """A batch of the recipe's size whose latents and texts are noise."""
    side = recipe.resolution // parts.factor
    image, target = (torch.randn(recipe.batch, 4, side, side, device=device) for _ in range(2))
    text = torch.randn(recipe.batch, 77, parts.unet.config["cross_attention_dim"], device=device)
    return Batch(image, target, text, text[:1], torch.arange(recipe.batch))


def _random_parts() -> Parts:
    from ip2p_fast.benchmarks.random_model import SD15, random_pipeline

    pipe: Any = random_pipeline(SD15)
    return Parts(pipe.unet, pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)


def _configs(model: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Of UNet, autoencoder and text encoder."""
    if model == SHAPE:
        from ip2p_fast.benchmarks.random_model import SD15

        return _plain(UNet2DConditionModel, SD15.unet), _plain(AutoencoderKL, SD15.vae), dict(SD15.text)
    parts = load_parts(model)
    text = parts.text_encoder.config.to_dict()
    return _own(parts.unet.config), _own(parts.vae.config), text


def _plain(kind: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the library's own for all others."""
    with torch.device("meta"):
        return _own(kind(**settings).config)


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
