"""What each trained component is worth, measured on held-out pairs with the weights as shipped."""

from __future__ import annotations

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from transformers import CLIPModel, CLIPTokenizer

from .clip import captions, retrieval
from .data import Pairs
from .reader import Reader, accuracy
from .vae import psnr, reconstruct

_RETRIEVED_FROM = 256


def vae_figures(vae: AutoencoderKL, held_out: Pairs) -> dict[str, float]:
    """Mean PSNR in dB of a picture through the autoencoder and back."""
    pictures = held_out.pictures()
    return {"vae_psnr_db": float(psnr(pictures, reconstruct(vae, pictures)).mean())}


def reader_figures(reader: Reader, vae: AutoencoderKL, held_out: Pairs) -> dict[str, float]:
    """Share read right of each attribute, on renders and on renders that went through the autoencoder.

    The second is a ceiling for every score that the reader gives to an edit.
    """
    pictures, labels = held_out.pictures(), held_out.labels.reshape(-1, held_out.labels.shape[-1])
    on_renders = accuracy(reader, pictures, labels)
    on_decoded = accuracy(reader, reconstruct(vae, pictures), labels)
    return {f"reader.{name}": share for name, share in on_renders.items()} | {
        f"reader_decoded.{name}": share for name, share in on_decoded.items()
    }


def clip_figures(clip: CLIPModel, tokenizer: CLIPTokenizer, held_out: Pairs) -> dict[str, float]:
    """Share of 256 pictures (the before pictures) whose own caption is the nearest of the 256."""
    texts = captions(held_out, np.random.default_rng(0))[::2][:_RETRIEVED_FROM]
    return {"clip_retrieval": retrieval(clip, tokenizer, held_out.pixels[: len(texts), 0], texts)}
