"""The diffusion model: InstructPix2Pix's own training, on cached latents and cached text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from .clip import tokenize
from .data import Pairs
from .dropout import draw_dropout
from .group_norm import keep_channels_last
from .language import instruction
from .loop import Loss, Run, load_average, train
from .parallel import world
from .sizes import Size, Stage
from .vae import encode

SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}
CHANGED = 4.0
_PHRASINGS = 3


@dataclass(frozen=True)
class Latents:
    """What the UNet trains on; N pairs, each read forwards and backwards (`Pairs.edit`).

    latents: float16 [N, 2, 4, h, w], the VAE's mode, not scaled. contexts: float16 [T, 77, D], the text encoder's
    output for every distinct instruction; row 0 is "". texts: int64 [N, 2, P], rows of `contexts` in P phrasings a
    direction; [N, 1, P] for pairs that are read forwards alone. scale: the VAE's scaling factor.
    """

    latents: Tensor
    contexts: Tensor
    texts: Tensor
    scale: float


def build_unet(size: Size, in_channels: int = 8) -> UNet2DConditionModel:
    """An untrained UNet of this size: one residual block a level, heads of 32 channels."""
    return UNet2DConditionModel(
        sample_size=size.latents,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=size.unet_widths,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in size.unet_attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(size.unet_attention)),
        layers_per_block=1,
        cross_attention_dim=size.text_width,
        # in this family of configs the name means the number of heads
        attention_head_dim=tuple(width // 32 for width in size.unet_widths),
    )


def prepare_latents(
    pairs: Pairs,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, count: None,
) -> Latents:
    """Encodes every picture and every distinct instruction once, instead of once a step."""
    rng = np.random.default_rng(seed)
    rows: dict[str, int] = {"": 0}
    texts = np.empty((len(pairs), 2, _PHRASINGS), np.int64)
    for i in range(len(pairs)):
        for backwards in (False, True):
            scene, edit = pairs.edit(i, backwards)
            for phrasing in range(_PHRASINGS):
                texts[i, int(backwards), phrasing] = rows.setdefault(instruction(scene, edit, rng), len(rows))
        if i % 1024 == 0:
            advance(i, len(pairs))
    with torch.autocast(vae.device.type, torch.bfloat16):
        latents = torch.stack([encode(vae, pairs.pixels[:, side]) for side in (0, 1)], 1).half()
    contexts = encode_texts(text_encoder, tokenizer, list(rows)).half()
    return Latents(latents, contexts, torch.from_numpy(texts), float(vae.config["scaling_factor"]))


@torch.no_grad()
def encode_texts(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """The text encoder's last hidden state, final norm included: float32 [T, 77, D] on the CPU."""
    parts = tokenize(tokenizer, [texts])[0].to(text_encoder.device).split(256)
    return torch.cat([text_encoder(part).last_hidden_state.float().cpu() for part in parts])


def train_unet(size: Size, data: Latents, run: Run) -> UNet2DConditionModel:
    """Trains the UNet to predict v, with `draw_dropout` on the two conditions.

    The image condition is the VAE's mode without the scaling factor and zeros when dropped; the text of a dropped
    instruction is encode("") (InstructPix2Pix, section 3.2).
    """
    torch.manual_seed(run.seed)
    unet = build_unet(size)
    return fit(unet, diffusion_loss(unet, data, size.unet.batch // world()), size.unet, run)


def fit(unet: UNet2DConditionModel, loss: Loss, stage: Stage, run: Run) -> UNet2DConditionModel:
    """Trains a UNet on a loss that calls it, and returns it with its averaged weights."""
    unet.train()
    unet.to(device=run.device, memory_format=torch.channels_last)  # type: ignore[call-arg]  # diffusers wraps `to`
    if torch.device(run.device).type == "cpu":
        # 64 and 16 tokens: plain products are faster than flash attention's backward pass
        unet.set_attn_processor(AttnProcessor())
    if run.compile:
        unet.compile()
    else:
        keep_channels_last(unet)
    load_average(unet, train(unet, loss, stage, run))
    return unet.eval()


def diffusion_loss(unet: UNet2DConditionModel, data: Latents, batch: int) -> Loss:
    """The loss of one batch as a function of its random generator."""

    def loss(rng: torch.Generator) -> Tensor:
        device = unet.device
        chosen = torch.randint(len(data.latents), (batch,), generator=rng)
        backwards = torch.randint(data.texts.shape[1], (batch,), generator=rng)
        phrasing = torch.randint(data.texts.shape[2], (batch,), generator=rng)
        noise = torch.randn(batch, *data.latents.shape[2:], generator=rng)
        timesteps = draw_timesteps(batch, SCHEDULER["num_train_timesteps"], rng)
        no_text, no_image = draw_dropout(batch, rng)

        text = data.contexts[data.texts[chosen, backwards, phrasing].masked_fill(no_text, 0)]
        pair = data.latents[chosen].to(device)
        each = torch.arange(batch)
        image = pair[each, backwards].float().masked_fill(no_image.to(device)[:, None, None, None], 0.0)
        target = pair[each, 1 - backwards].float() * data.scale
        error = velocity_error(unet, target, image, noise.to(device), timesteps.to(device), text.to(device).float())
        return (error * changed_weight(pair[:, 0], pair[:, 1], data.scale)).mean()

    return loss


def velocity_error(
    unet: UNet2DConditionModel, target: Tensor, image: Tensor | None, noise: Tensor, timesteps: Tensor, text: Tensor
) -> Tensor:
    """Squared error of the predicted v = a noise - s target (Salimans and Ho 2022), mean over channels: [B, h, w].

    Args:
        target: [B, 4, h, w], scaled latents to be found again. noise: the same shape, unit normal.
        image: [B, 4, h, w], the image condition of an 8-channel UNet; None for a 4-channel one.
        timesteps: [B] int64.
        text: [B, 77, D].
    """
    a, s = (level[:, None, None, None] for level in noise_levels(timesteps))
    noisy = a * target + s * noise
    if image is not None:
        noisy = torch.cat([noisy, image], 1)
    predicted = unet(noisy.contiguous(memory_format=torch.channels_last), timesteps, text).sample.float()
    return (predicted - (a * noise - s * target)).square().mean(1)


def noise_levels(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of signal and of noise at these timesteps; their squares sum to one."""
    cumulative = _cumulative().to(timesteps.device)[timesteps]
    return cumulative.sqrt(), (1 - cumulative).sqrt()


@lru_cache(maxsize=1)
def _cumulative() -> Tensor:
    return EulerAncestralDiscreteScheduler(**SCHEDULER).alphas_cumprod


def draw_timesteps(count: int, steps: int, rng: torch.Generator) -> Tensor:
    """int64 [count] in 0 .. steps - 1, with a density that grows in proportion to the timestep.

    What an edit does is decided while there is much noise; the last, nearly clean steps are learnt with few samples.
    One timestep comes from each of `count` parts of equal probability, so that the loss varies less from step to step.
    """
    quantile = (torch.arange(count) + torch.rand(count, generator=rng)) / count
    return (quantile.sqrt() * steps).long().clamp_(max=steps - 1)


def changed_weight(before: Tensor, after: Tensor, scale: float) -> Tensor:
    """Weights [N, h, w] of mean 1 that count latents which the edit changes `CHANGED` times as much as the others.

    A red balloon turned blue is a tenth of the picture; left to its share of the area it is learnt last.
    """
    changed = ((after.float() - before.float()).abs().mean(1) * scale > 0.1).float()
    weight = 1 + (CHANGED - 1) * changed
    return weight / weight.mean(dim=(1, 2), keepdim=True)
