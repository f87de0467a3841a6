"""Small random models in the real layouts, for tests that must not depend on trained weights."""

import re
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import models, pre_tokenizers
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT = [
    "make it night",
    "turn the red cat into a blue dog, please!",
    "add 3 trees to the left of the house",
    "what would it look like in winter?",
    "a watercolour painting of mountains at sunset",
]

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "prediction_type": "epsilon",
}


def tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-level BPE in CLIP's form: bytes, bytes that end a word, the merges of TEXT's words, two special tokens.

    The merges are listed, not learnt: the library's trainer breaks ties differently in every process.
    """
    merges = {}
    for word in re.findall("[a-z]+", " ".join(TEXT)):
        letters = [*word[:-1], word[-1] + "</w>"]
        for end in range(1, len(letters)):
            merges["".join(letters[:end]), letters[end]] = None
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends, pieces = [letter + "</w>" for letter in alphabet], ["".join(pair) for pair in merges]
    vocabulary = [*dict.fromkeys(alphabet + ends + pieces), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    models.BPE({token: i for i, token in enumerate(vocabulary)}, list(merges)).save(str(folder))
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def unet(seed: int = 0, **changes) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    settings = dict(
        sample_size=8,
        in_channels=8,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=32,
        norm_num_groups=8,
        layers_per_block=1,
    )
    return UNet2DConditionModel(**(settings | changes)).eval()


def vae(seed: int = 1) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=16,
        scaling_factor=0.7,
    ).eval()


def text_encoder(tokens: CLIPTokenizer, seed: int = 2) -> CLIPTextModel:
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        projection_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
    )
    return CLIPTextModel(config).eval()


def pipeline(folder: Path, scheduler: dict | None = None, **unet_changes) -> StableDiffusionInstructPix2PixPipeline:
    """An InstructPix2Pix pipeline with random weights: f = 2, two levels, sides in multiples of 4."""
    tokens = tokenizer(folder / "tokenizer_source")
    pipe = StableDiffusionInstructPix2PixPipeline(
        vae=vae(),
        text_encoder=text_encoder(tokens),
        tokenizer=tokens,
        unet=unet(**unet_changes),
        scheduler=EulerAncestralDiscreteScheduler(**(scheduler or SCHEDULER)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def text_to_image(folder: Path, scheduler: dict | None = None) -> StableDiffusionPipeline:
    """A text-to-image pipeline with random weights and attention at both levels: f = 2, sides in multiples of 4."""
    tokens = tokenizer(folder / "tokenizer_source")
    everywhere = {"down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2}
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=text_encoder(tokens),
        tokenizer=tokens,
        unet=unet(in_channels=4, **everywhere),
        scheduler=EulerAncestralDiscreteScheduler(**(scheduler or SCHEDULER)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_clip(folder: Path, seed: int = 3) -> Path:
    """Writes a CLIP with random weights for pictures of 16x16, with its tokenizer."""
    torch.manual_seed(seed)
    tokens = tokenizer(folder / "tokenizer_source")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id}
    text = tower | ends | {"vocab_size": len(tokens), "max_position_embeddings": 77, "projection_dim": 16}
    vision = tower | {"image_size": 16, "patch_size": 4, "projection_dim": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder
