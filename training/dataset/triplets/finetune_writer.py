"""Finetune a causal language model on triplets written by hand (InstructPix2Pix, section 3.1.1)."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ip2p_fast.errors import BadInput, MissingExtra

from .triplet import NotATriplet, Triplet, completion, parse, prompt
from .writers import Sampling, TransformersWriter, load_language_model

_IGNORED = -100
_AT_ONCE = 32


@dataclass(frozen=True)
class Finetuning:
    """How a writer is finetuned; one epoch, as in the paper.

    held_out: the share of the triplets that is measured and not trained on. lora_rank: train low-rank updates of the
    linear layers instead of all weights (Hu et al. 2021), for models that would not fit otherwise; they are merged into
    what is saved. device: cpu or cuda. sampling: how the held-out captions are answered.
    """

    epochs: float = 1.0
    batch: int = 8
    learning_rate: float = 5e-5
    held_out: float = 0.1
    lora_rank: int | None = None
    seed: int = 0
    device: str = "cpu"
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        if not self.epochs > 0:
            raise BadInput(f"epochs is {self.epochs}; it must be above 0")
        if not self.learning_rate > 0:
            raise BadInput(f"the learning rate is {self.learning_rate}; it must be above 0")
        if not 0 <= self.held_out <= 0.5:
            raise BadInput(f"the held-out share is {self.held_out}; it must be from 0 to 0.5")
        if self.device not in ("cpu", "cuda"):
            raise BadInput(f"there is no device {self.device!r}: choose cpu or cuda")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BadInput("device cuda: this machine has no usable CUDA device; use --device cpu")


@dataclass(frozen=True)
class Finetuned:
    """What came of it. Both figures are over the triplets held out, and None where there are none.

    perplexity: of a token of the completion. valid: the share of captions whose first answer is a triplet.
    """

    trained: int
    held_out: int
    perplexity: float | None
    valid: float | None


def finetune_writer(
    triplets: Sequence[Triplet],
    model: str,
    folder: Path,
    settings: Finetuning,
    advance: Callable[[int, int], None] = lambda step, steps: None,
) -> Finetuned:
    """Finetunes a folder, a hub id or a shipped model, and writes a Hugging Face folder that loads by itself.

    The loss counts the completion alone, its end included: the caption is given, not written.

    Args:
        advance: told the steps done, and of how many.

    Raises:
        ModelError: `model` is no causal language model that can be loaded.
        BadInput: the folder holds something, or a triplet is longer than the model's context.
        MissingExtra: a LoRA rank without peft.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is there already: choose another output")
    trained, held_out = split_triplets(triplets, settings.held_out)
    tokenizer, language_model = load_language_model(model)
    # the held-out ones as well, so that one that is too long is found now
    rows = [_encoded(triplet, tokenizer, language_model) for triplet in (*trained, *held_out)][: len(trained)]
    writes_with_cache = getattr(language_model.config, "use_cache", True)
    if settings.lora_rank is not None:
        language_model = _with_lora(language_model, settings.lora_rank)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=language_model,
            args=TrainingArguments(
                output_dir=scratch,
                num_train_epochs=settings.epochs,
                per_device_train_batch_size=settings.batch,
                learning_rate=settings.learning_rate,
                seed=settings.seed,
                use_cpu=settings.device == "cpu",
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=_IGNORED),
            callbacks=[_Progress(advance)],
        )
        trainer.remove_callback(PrinterCallback)  # stdout is for the result
        trainer.train()
    language_model = language_model.merge_and_unload() if settings.lora_rank is not None else language_model
    language_model.config.use_cache = writes_with_cache  # the trainer has no use for one
    language_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if not held_out:
        return Finetuned(len(trained), 0, None, None)
    writer = TransformersWriter(str(folder), settings.sampling, settings.device)
    return Finetuned(
        len(trained), len(held_out), perplexity(str(folder), held_out), _valid_share(writer, held_out, settings.seed)
    )


def split_triplets(triplets: Sequence[Triplet], share: float) -> tuple[list[Triplet], list[Triplet]]:
    """Those to train on, and those held out: every n-th, so that the same file is always split alike."""
    every = round(1 / share) if share else len(triplets) + 1
    numbered = list(enumerate(triplets, 1))
    return [t for n, t in numbered if n % every], [t for n, t in numbered if n % every == 0]


def perplexity(model: str, triplets: Sequence[Triplet]) -> float:
    """exp of the mean negative log-likelihood of a completion's token, its end included, in fp32 on the CPU."""
    tokenizer, language_model = load_language_model(model)
    language_model = language_model.float().eval()
    collate = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=_IGNORED)
    total, count = 0.0, 0
    for first in range(0, len(triplets), _AT_ONCE):
        rows = [_encoded(triplet, tokenizer, language_model) for triplet in triplets[first : first + _AT_ONCE]]
        batch = collate(rows)
        with torch.inference_mode():
            logits = language_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        # [B, S, V] against the next token of each
        following = batch["labels"][:, 1:].flatten()
        total += float(functional.cross_entropy(logits[:, :-1].flatten(0, 1), following, reduction="sum"))
        count += int((following != _IGNORED).sum())
    return math.exp(total / count)


def _encoded(triplet: Triplet, tokenizer: Any, model: Any) -> dict[str, list[int]]:
    """Prompt and completion as tokens, each encoded alone, as they are when the model writes."""
    given = tokenizer(prompt(triplet.caption)).input_ids
    written = tokenizer(completion(triplet), add_special_tokens=False).input_ids
    if tokenizer.eos_token_id is not None:
        written = [*written, tokenizer.eos_token_id]
    tokens = [*given, *written]
    longest = getattr(model.config, "max_position_embeddings", len(tokens))
    if len(tokens) > longest:
        raise BadInput(
            f"the triplet of {triplet.caption!r} is {len(tokens)} tokens long; the model takes {longest}: leave it out"
        )
    return {
        "input_ids": tokens,
        "attention_mask": [1] * len(tokens),
        "labels": [*[_IGNORED] * len(given), *written],
    }


def _valid_share(writer: TransformersWriter, triplets: Sequence[Triplet], seed: int) -> float:
    captions = [triplet.caption for triplet in triplets]
    valid = 0
    for first in range(0, len(captions), _AT_ONCE):
        chosen = captions[first : first + _AT_ONCE]
        seeds = [seed + n for n in range(first, first + len(chosen))]
        for caption, text in zip(chosen, writer.write(chosen, seeds), strict=True):
            try:
                parse(caption, text)
            except NotATriplet:
                continue
            valid += 1
    return valid / len(captions)


def _with_lora(model: Any, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtra("--lora-rank", "train") from error
    return get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    )


class _Progress(TrainerCallback):
    def __init__(self, advance: Callable[[int, int], None]) -> None:
        self._advance = advance

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._advance(state.global_step, state.max_steps)
