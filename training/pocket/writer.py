"""The pocket writer: a small GPT-2 that knows the world's sentences, to be finetuned on triplets written by hand.

Pretraining stands for what GPT-3 had read before it was finetuned on 700 triplets (InstructPix2Pix, section 3.1.1):
texts of the grammar, drawn afresh for every step, and the bare words of the instructions, without what they mean.
Neither it nor the finetuning sees a held-out scene.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from ..dataset.triplets.finetune_writer import Finetuning, finetune_writer, split_triplets
from ..dataset.triplets.triplet import Triplet, completion, prompt
from ..dataset.triplets.written import read_triplets
from . import language
from .loop import Run, load_average, train
from .sizes import Size
from .split import draw_pair

WRITTEN = Path(__file__).parents[1] / "dataset" / "triplets" / "written_triplets.jsonl"
"""700 triplets of the world in words that its grammar does not have."""
HELD_OUT_SHARE = 0.1
END_OF_TEXT = "<|endoftext|>"
CONTEXT = 128
_ENTRIES = 1024
_TEXTS = 4000
_IGNORED = -100
_HEAD_WIDTH = 32
_SHARE_OF_TRIPLETS = 0.7
_INDICES = 1 << 30
# of the finetuning
_BATCH, _LEARNING_RATE, _DROPOUT = 8, 1e-3, 0.1
# the last message alone, unchanged: a base model has no turns
_CHAT_TEMPLATE = "{{ messages[-1]['content'] }}"


def train_writer(size: Size, run: Run, folder: Path) -> dict[str, float]:
    """Pretrains, finetunes on `WRITTEN` as `ip2p-fast dataset finetune-writer` does, and publishes what comes of it.

    Among the written triplets are as many of the grammar: a model this small forgets what an edit is while it learns
    new words for it.

    Returns:
        The figures of the finetuning, on the share of both that is held out.
    """
    written = read_triplets(WRITTEN)
    instructions = [triplet.edit for triplet in split_triplets(written, HELD_OUT_SHARE)[0]]
    tokenizer = build_writer_tokenizer(_tokenizer_texts(instructions))
    model = pretrain_writer(size, tokenizer, instructions, run)
    settings = Finetuning(size.writer_epochs, _BATCH, _LEARNING_RATE, HELD_OUT_SHARE, seed=run.seed, device=run.device)
    with tempfile.TemporaryDirectory() as scratch:
        pretrained, finetuned = Path(scratch, "pretrained"), Path(scratch, "finetuned")
        # few texts, seen often: unlike those of the pretraining, which never come twice
        model.config.resid_pdrop = model.config.embd_pdrop = _DROPOUT
        publish_writer(model, tokenizer, pretrained)
        report = finetune_writer([*written, *_rehearsal(len(written))], str(pretrained), finetuned, settings)
        publish_writer(GPT2LMHeadModel.from_pretrained(finetuned), tokenizer, folder)
    return {
        "writer_parameters": float(model.num_parameters()),
        "writer_perplexity": report.perplexity or math.nan,
        "writer_valid": report.valid or 0.0,
    }


def pretrain_writer(size: Size, tokenizer: GPT2Tokenizer, instructions: Sequence[str], run: Run) -> GPT2LMHeadModel:
    """A GPT-2 trained on triplets of the grammar in the finetuning's format, and on sentences.

    Half of the sentences are the grammar's, half are `instructions`, without a caption or what comes of them.
    """
    torch.manual_seed(run.seed)
    model: Any = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=CONTEXT,
            n_embd=size.writer_width,
            n_layer=size.writer_layers,
            n_head=size.writer_width // _HEAD_WIDTH,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )
    model.to(run.device)

    def loss(generator: torch.Generator) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=generator)))
        texts = [_text(instructions, rng) for _ in range(size.writer.batch)]
        given = torch.tensor([len(tokenizer(text[0]).input_ids) for text in texts])
        batch = tokenizer(["".join(text) + END_OF_TEXT for text in texts], return_tensors="pt", padding=True)
        # the token that pads also ends a text, and is to be learnt there: the mask tells them apart
        counted = (batch.attention_mask == 1) & (torch.arange(batch.input_ids.shape[1]) >= given[:, None])  # [B, S]
        following = batch.input_ids.masked_fill(~counted, _IGNORED)[:, 1:].to(run.device)
        # no mask here: a causal model cannot see the padding behind a text
        logits = model(input_ids=batch.input_ids.to(run.device)).logits[:, :-1]  # [B, S - 1, V]
        return functional.cross_entropy(logits.flatten(0, 1).float(), following.flatten(), ignore_index=_IGNORED)

    model.train()
    load_average(model, train(model, loss, size.writer, run))
    return model.eval()


def grammar_triplet(rng: np.random.Generator, split: str = "train") -> Triplet:
    """A triplet whose edited caption is the caption with the edited words alone changed."""
    pair = draw_pair(split, int(rng.integers(_INDICES)))
    caption = language.caption(pair.scene, rng)
    instruction = language.instruction(pair.scene, pair.edit, rng)
    return Triplet(caption, instruction, language.edited_caption(caption, pair.edit.scene, rng))


def build_writer_tokenizer(texts: Sequence[str]) -> GPT2Tokenizer:
    """A GPT2Tokenizer of at most `_ENTRIES` entries: the bytes, merges learnt from `texts`, and the end of text."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=_ENTRIES - 1, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    vocabulary = {**learnt["vocab"], END_OF_TEXT: len(learnt["vocab"])}
    merges = [tuple(pair) for pair in learnt["merges"]]
    # merges as pairs is what every version takes, whatever the annotation of the newest says
    tokenizer = GPT2Tokenizer(vocab=vocabulary, merges=merges, pad_token=END_OF_TEXT, model_max_length=CONTEXT)  # type: ignore[arg-type]
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def _text(instructions: Sequence[str], rng: np.random.Generator) -> tuple[str, str]:
    """What is given and what is to be learnt: a triplet's prompt and completion, or nothing and four sentences."""
    chance = rng.random()
    if chance < _SHARE_OF_TRIPLETS:
        triplet = grammar_triplet(rng)
        return prompt(triplet.caption), completion(triplet)
    if chance < (1 + _SHARE_OF_TRIPLETS) / 2:
        triplets = [grammar_triplet(rng) for _ in range(2)]
        return "", "\n".join(text for triplet in triplets for text in (triplet.caption, triplet.edit))
    return "", "\n".join(instructions[int(n)] for n in rng.integers(len(instructions), size=4))


def _rehearsal(count: int) -> list[Triplet]:
    rng = np.random.default_rng(1)
    return [grammar_triplet(rng) for _ in range(count)]


def _tokenizer_texts(instructions: Sequence[str]) -> list[str]:
    rng = np.random.default_rng(0)
    grammar = [grammar_triplet(rng) for _ in range(_TEXTS)]
    return [*(prompt(triplet.caption) + completion(triplet) for triplet in grammar), *instructions]


def publish_writer(model: GPT2LMHeadModel, tokenizer: GPT2Tokenizer, folder: Path) -> None:
    """Writes a Hugging Face folder, weights in fp16; it samples by default and is computed in fp32."""
    model = model.half()
    model.generation_config = GenerationConfig(
        do_sample=True, bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
