"""A small CLIP of the pocket world. Its text tower is the text encoder of the diffusion model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from .data import Pairs
from .language import caption, instruction
from .loop import Run, load_average, train
from .scene import ATTRIBUTES, Edit, Scene
from .sizes import Size
from .split import KINDS
from .tokenizer import CONTEXT
from .vae import as_tensor

_LAYERS = 4
UNSAID = -100
"""Where an instruction says nothing of an attribute: the value that cross-entropy leaves out."""


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


class Readers(nn.Module):
    """A CLIP and, for its training only, linear heads that read what its towers must not lose.

    pictures, texts: from a tower's pooled output to the eight attributes, as `ATTRIBUTES` lists them. instructions:
    from the text tower's output at every position behind an instruction's end to the edit's kind and the values it
    asks for.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        width, values = clip.text_embed_dim, sum(map(len, ATTRIBUTES.values()))
        self.clip = clip
        self.pictures = nn.Linear(width, values)
        self.texts = nn.Linear(width, values)
        self.instructions = nn.Linear(width, values + len(KINDS))


def train_clip(size: Size, pairs: Pairs, tokenizer: CLIPTokenizer, run: Run) -> CLIPModel:
    """Trains picture against text with CLIP's symmetric contrastive loss, and both towers to keep the attributes.

    Two texts in three are the picture's caption. The third is the caption of the other picture of the pair and the
    instruction that leads from there. The contrast alone is won by the few attributes that fill a picture; subject,
    colour, count and position then take up a hundredth of the text tower's variance, and a diffusion model does not
    find them there. So linear heads (`Readers`) ask both towers for every attribute, and ask the text tower, which the
    diffusion model will have read instructions, for what an instruction alone says.
    Two pictures of a batch can show the same scene; they are so few that they are left to count as negatives.
    """
    torch.manual_seed(run.seed)
    model = nn.Module.to(Readers(build_clip(size, tokenizer)), run.device).train()
    clip: Any = model.clip
    pictures = pairs.pictures()
    labels = torch.from_numpy(pairs.labels.reshape(len(pictures), -1).astype(np.int64))
    rng = np.random.default_rng(run.seed)
    words = tokenize(tokenizer, [captions(pairs, rng), captions(pairs, rng), _edited_captions(pairs, rng)])
    # nothing behind the first end token reaches the embedding of a text: attention is causal
    words = words[..., : int((words == tokenizer.eos_token_id).int().argmax(-1).max()) + 1]
    orders, asked = _orders(pairs, tokenizer, rng)
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
        contrast = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2

        shown = labels[chosen].to(run.device)
        seen = reading_loss(model.pictures(out.vision_model_output.pooler_output), shown)
        said = reading_loss(model.texts(out.text_model_output.pooler_output), shown)

        chosen = torch.randint(len(orders), (size.clip.batch // 2,), generator=rng)
        order = orders[chosen].to(run.device)
        hidden = clip.text_model(input_ids=order).last_hidden_state
        behind = (order == tokenizer.eos_token_id).nonzero(as_tuple=True)
        wanted = reading_loss(model.instructions(hidden[behind]), asked[chosen].to(run.device)[behind[0]])
        return contrast + seen + said + wanted

    load_average(model, train(model, loss, size.clip, run))
    return clip.eval()


def reading_loss(logits: Tensor, values: Tensor) -> Tensor:
    """Mean cross-entropy of heads that lie side by side: the attributes and, where there is room, the kind of edit.

    values: int64 [N, heads], `UNSAID` where there is nothing to read.
    """
    sizes = [len(options) for options in ATTRIBUTES.values()]
    if logits.shape[1] > sum(sizes):
        sizes.append(len(KINDS))
    parts = logits.float().split(sizes, dim=1)
    losses = [
        functional.cross_entropy(part, values[:, i], reduction="sum", ignore_index=UNSAID)
        for i, part in enumerate(parts)
    ]
    return torch.stack(losses).sum() / (values != UNSAID).sum()


def instruction_targets(scene: Scene, edit: Edit) -> list[int]:
    """What an instruction asks for: the attributes' new values, `UNSAID` where it leaves one alone, and its kind."""
    before, after = scene.labels(), edit.scene.labels()
    values = [after[name] if after[name] != before[name] else UNSAID for name in ATTRIBUTES]
    return [*values, KINDS.index(edit.kind)]


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


def _orders(pairs: Pairs, tokenizer: CLIPTokenizer, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Instructions alone, both ways of every pair, int64 [2 N, 77]; and their targets, int64 [2 N, 9]."""
    texts, asked = [], []
    for i in range(len(pairs)):
        for backwards in (False, True):
            scene, edit = pairs.edit(i, backwards)
            texts.append(instruction(scene, edit, rng))
            asked.append(instruction_targets(scene, edit))
    return tokenize(tokenizer, [texts])[0], torch.tensor(asked)
