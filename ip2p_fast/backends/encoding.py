"""Pictures to latents and back, and texts to keys and values: what runs once an edit, as functions of tensors.

All are made of operations that a CUDA graph can hold.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..transformer import KeysValues
from ..unet import UNet


def encode_picture(vae: Any, pixels: Tensor) -> tuple[Tensor]:
    """The mode of the VAE's posterior, not scaled. [H, W, 3] uint8 -> [C, h, w] in the VAE's dtype"""
    scaled = pixels.permute(2, 0, 1)[None].to(vae.dtype) / 127.5 - 1.0  # [1, 3, H, W]
    return (vae.encode(scaled.contiguous(memory_format=torch.channels_last)).latent_dist.mode()[0],)


def decode_picture(vae: Any, latents: Tensor) -> tuple[Tensor]:
    """[C, h, w] float32, scaled -> [H, W, 3] uint8"""
    scaled = (latents[None] / vae.config.scaling_factor).to(vae.dtype)
    pixels = vae.decode(scaled, return_dict=False)[0][0].float()
    pixels = (pixels * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)
    return (pixels.permute(1, 2, 0).contiguous(),)


def encode_text(text_encoder: Any, unet: UNet, device: torch.device, ids: Tensor) -> tuple[Tensor, ...]:
    """[77] int64, on the text encoder's device -> keys and values of every layer in turn, on the UNet's `device`."""
    context = text_encoder(ids[None], return_dict=False)[0]  # [1, 77, D]
    return flat(unet.text_keys_values(context.to(device)))


def flat(text: list[KeysValues]) -> tuple[Tensor, ...]:
    """Keys and values a layer -> keys, values, keys, values, ..."""
    return tuple(tensor for keys_values in text for tensor in keys_values)


def in_layers(tensors: tuple[Tensor, ...]) -> list[KeysValues]:
    """The reverse of `flat`."""
    return list(zip(tensors[::2], tensors[1::2], strict=True))
