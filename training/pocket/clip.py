"""A small CLIP of the pocket world. Its text tower is the text encoder of the diffusion model."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from .data import Pairs
from .language import caption, instruction
from .loop import Run, load_average, train
from .sizes import Size
from .tokenizer import CONTEXT
from .vae import as_tensor

_LAYERS = 4


def build_clip(size: Size, tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained CLIPModel: four layers a tower, the image in 8x8 patches."""
    width = size.text_width
    tower = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": width // 32,
        "hidden_act": "quick_gelu",
        "projection_dim": width,
    }
    # named one by one: with transformers' default end token (2) the tower would pool at the wrong place
    tokens = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"image_size": size.pixels, "patch_size": size.patch}
    return CLIPModel(CLIPConfig(text_config=tower | tokens, vision_config=tower | vision, projection_dim=width))


def train_clip(size: Size, pairs: Pairs, tokenizer: CLIPTokenizer, run: Run) -> CLIPModel:
    """Trains picture against text with CLIP's symmetric contrastive loss.

    Two texts in three are the picture's caption. The third is the caption of the other picture of the pair and the
    instruction that leads from there: the diffusion model will ask this tower to read instructions, so it learns
    them here.
    Two pictures of a batch can show the same scene; they are so few that they are left to count as negatives.
    """
    torch.manual_seed(run.seed)
    clip = nn.Module.to(build_clip(size, tokenizer), run.device).train()
    pictures = pairs.pictures()
    rng = np.random.default_rng(run.seed)
    words = tokenize(tokenizer, [captions(pairs, rng), captions(pairs, rng), _edited_captions(pairs, rng)])
    # nothing behind the first end token reaches the embedding of a text: attention is causal
    words = words[..., : int((words == tokenizer.eos_token_id).int().argmax(-1).max()) + 1]
    if torch.device(run.device).type == "cpu":
        clip.set_attn_implementation("eager")  # plain products have the faster backward pass here

    def loss(rng: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pictures), (size.clip.batch,), generator=rng)
        phrasing = torch.randint(len(words), (size.clip.batch,), generator=rng)
        x = as_tensor(pictures[chosen.numpy()], run.device)
        out = clip(input_ids=words[phrasing, chosen].to(run.device), pixel_values=x)
        logits = out.logits_per_image.float()
        target = torch.arange(len(logits), device=logits.device)
        # the temperature is held below 1/100, as CLIP does
        clip.logit_scale.data.clamp_(max=math.log(100))
        return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2

    load_average(clip, train(clip, loss, size.clip, run))
    return clip.eval()


def captions(pairs: Pairs, rng: np.random.Generator) -> list[str]:
    """A caption of every picture (before, after, before, ...), each in a phrasing of its own."""
    return [caption(pairs.scene(i, after), rng) for i in range(len(pairs)) for after in (False, True)]


def tokenize(tokenizer: CLIPTokenizer, texts: list[list[str]]) -> Tensor:
    """int64 [rows, texts, 77]; padded with the end token, cut at 77."""
    options = {"padding": "max_length", "truncation": True, "max_length": CONTEXT, "return_tensors": "pt"}
    return torch.stack([tokenizer(row, **options).input_ids for row in texts])


@torch.no_grad()
def retrieval(clip: CLIPModel, tokenizer: CLIPTokenizer, pictures: np.ndarray, texts: list[str]) -> float:
    """Share of pictures whose own caption is the nearest among all of `texts`."""
    words = tokenize(tokenizer, [texts])[0].to(clip.device)
    out = clip(input_ids=words, pixel_values=as_tensor(pictures, clip.device))
    return float((out.logits_per_image.argmax(1).cpu() == torch.arange(len(texts))).float().mean())


def _edited_captions(pairs: Pairs, rng: np.random.Generator) -> list[str]:
    """For every picture, in the order of `captions`: the other picture's caption, then the instruction leading here."""
    texts = []
    for i in range(len(pairs)):
        for backwards in (True, False):
            scene, edit = pairs.edit(i, backwards)
            texts.append(f"{caption(scene, rng)}, {instruction(scene, edit, rng)}")
    return texts
