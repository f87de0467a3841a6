"""A complete model of random weights, of Stable Diffusion 1.5's size or tiny: weights of the right shapes do for speed
and memory. Made from a fixed seed wherever it is needed and never stored with the project.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix import (
    StableDiffusionInstructPix2PixPipeline,
)
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SEED = 0

# runwayml/stable-diffusion-v1-5's scheduler_config.json
SCHEDULER: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "prediction_type": "epsilon",
}


@dataclass(frozen=True)
class Shape:
    """Configurations of the three networks, as in their config.json, without what is the library's default."""

    name: str
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]


# timbrooks/instruct-pix2pix: Stable Diffusion 1.5 with a UNet of 8 input channels
SD15 = Shape(
    "sd15",
    unet={"sample_size": 64, "in_channels": 8, "cross_attention_dim": 768, "attention_head_dim": 8},
    vae={
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "sample_size": 512,
    },
    text={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
)

# the same family at a thousandth of the size, for trials of the benchmarks themselves
TINY = Shape(
    "tiny",
    unet={
        "sample_size": 8,
        "in_channels": 8,
        "block_out_channels": (32, 64, 64, 64),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
    },
    vae={
        "block_out_channels": (32, 32, 32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "sample_size": 64,
    },
    text={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "projection_dim": 32,
    },
)


def random_pipeline(
    shape: Shape, dtype: torch.dtype = torch.float32, edits: bool = True, device: torch.device | str = "cpu"
) -> StableDiffusionInstructPix2PixPipeline | StableDiffusionPipeline:
    """diffusers' pipeline with weights drawn from SEED, in `dtype`, silent.

    edits: False for the text-to-image model, whose UNet takes 4 channels. device: draws and holds the weights.
    """
    torch.manual_seed(SEED)
    tokenizer = _tokenizer()
    text_config = CLIPTextConfig(**shape.text, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    with torch.device(device):
        networks = dict(
            unet=UNet2DConditionModel(**{**shape.unet, "in_channels": 8 if edits else 4}),
            vae=AutoencoderKL(latent_channels=4, **shape.vae),
            text_encoder=CLIPTextModel(text_config),
        )
    parts: dict[str, Any] = dict(
        **{name: _placed(network, dtype) for name, network in networks.items()},
        tokenizer=tokenizer,
        scheduler=EulerAncestralDiscreteScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe = (StableDiffusionInstructPix2PixPipeline if edits else StableDiffusionPipeline)(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save_random_model(
    shape: Shape,
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
    edits: bool = True,
    device: torch.device | str = "cpu",
) -> Path:
    """Writes such a model in Hugging Face layout (safetensors) and returns the folder."""
    random_pipeline(shape, dtype, edits, device).save_pretrained(folder)
    return folder


def _placed(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    # nn.Module's own `to`: the libraries' overrides warn about a precision list that is empty for these models
    return torch.nn.Module.to(module, dtype).requires_grad_(False).eval()


def _tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with single bytes for its whole vocabulary: how texts are split is nothing to speed."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
        Path(folder, "merges.txt").write_text("#version: 0.2\n")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77)
