"""The autoencoder: 4-channel latents of the world's pictures, as sharp as the size allows."""

from __future__ import annotations

import math

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from .data import Pairs
from .group_norm import keep_channels_last
from .loop import Run, load_average, train
from .parallel import world
from .sizes import Size

KL_WEIGHT = 1e-6
EDGE_WEIGHT = 0.5
CHROMA_WEIGHT = 0.5


def build_vae(size: Size) -> AutoencoderKL:
    """An untrained AutoencoderKL of this size; one residual block a level, no attention (the pictures are local)."""
    levels = len(size.vae_widths)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=size.vae_widths,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=size.pixels,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def train_vae(size: Size, pairs: Pairs, run: Run) -> AutoencoderKL:
    """Trains on both pictures of every pair: L1, squared, edge and chroma error in [-1, 1]; a tiny KL weight.

    `scaling_factor` in the returned model's config is 1 / the standard deviation of the training latents, as in SD.
    """
    vae = keep_channels_last(build_vae(size), run.device).train()
    pictures = pairs.pictures()

    def loss(rng: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pictures), (size.vae.batch // world(),), generator=rng)
        x = as_tensor(pictures[chosen.numpy()], run.device)
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=rng).to(run.device)
        y = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return _reconstruction_loss(y - x) + KL_WEIGHT * kl

    load_average(vae, train(vae, loss, size.vae, run))
    vae.eval()
    sample = encode(vae, pictures[:: max(1, len(pictures) // 2048)])
    vae.register_to_config(scaling_factor=round(1 / float(sample.std()), 5))
    return vae


def train_decoder(size: Size, vae: AutoencoderKL, latents: Tensor, pairs: Pairs, run: Run) -> AutoencoderKL:
    """Goes on with the decoder alone: the latents, and so whatever was trained on them, stay what they are.

    Args:
        latents: float16 [N, 2, 4, h, w], the modes of the first N pairs' pictures (`unet.Latents`).
    """
    vae = keep_channels_last(vae, run.device).train().requires_grad_(False)
    for part in (vae.decoder, vae.post_quant_conv):
        if part is not None:
            part.requires_grad_(True)
    latents = latents.flatten(0, 1)
    pictures = pairs.pictures()

    def loss(rng: torch.Generator) -> Tensor:
        chosen = torch.randint(len(latents), (size.decoder.batch // world(),), generator=rng)
        x = as_tensor(pictures[chosen.numpy()], run.device)
        z = latents[chosen].to(run.device).float()
        return _reconstruction_loss(vae.decode(z).sample.float() - x)

    load_average(vae, train(vae, loss, size.decoder, run))
    return vae.eval()


def as_tensor(pictures: np.ndarray, device: str | torch.device = "cpu") -> Tensor:
    """uint8 [N, S, S, 3] -> float [N, 3, S, S] in [-1, 1], channels last."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2)
    return x.float().div_(127.5).sub_(1.0)


def as_pictures(x: Tensor) -> np.ndarray:
    """The inverse of `as_tensor`, rounded and clipped."""
    return x.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: np.ndarray, batch: int = 128) -> Tensor:
    """The mode of each picture's latents, not scaled: float32 [N, 4, S/f, S/f] on the CPU."""
    parts = [vae.encode(as_tensor(p, vae.device)).latent_dist.mean.float().cpu() for p in _batches(pictures, batch)]
    return torch.cat(parts)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pictures: np.ndarray, batch: int = 128) -> np.ndarray:
    """Pictures through the autoencoder and back, uint8."""
    parts = []
    for part in _batches(pictures, batch):
        latents = vae.encode(as_tensor(part, vae.device)).latent_dist.mean
        parts.append(as_pictures(vae.decode(latents).sample))
    return np.concatenate(parts)


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each pair of uint8 pictures [N, S, S, 3]; 60 where they are equal."""
    error = np.square(a.astype(np.float64) - b).mean(axis=(1, 2, 3))
    return 20 * math.log10(255) - 10 * np.log10(np.maximum(error, 255**2 * 1e-6))


def _reconstruction_loss(error: Tensor) -> Tensor:
    edges = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
    # a grey balloon in place of a green one is a small error in RGB, and a wrong picture
    chroma = (error[:, 0] - error[:, 1]).abs().mean() + (error[:, 2] - error[:, 1]).abs().mean()
    return error.abs().mean() + error.square().mean() + EDGE_WEIGHT * edges + CHROMA_WEIGHT * chroma


def _batches(pictures: np.ndarray, batch: int) -> list[np.ndarray]:
    return [pictures[i : i + batch] for i in range(0, len(pictures), batch)]
