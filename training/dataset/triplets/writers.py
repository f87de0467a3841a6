"""Who writes the instruction and the edited caption: a language model here, or the pocket world's own grammar.

A language model behind an endpoint is in `openai_writer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import ip2p_fast
from ip2p_fast.errors import BadInput, MissingExtra, ModelError

from .triplet import END, Triplet, completion, prompt

SHIPPED = {"pocket-writer": Path(ip2p_fast.__file__).parent / "pocket-writer"}
"""Language models that come with the package, by the name that stands for their folder."""


class Writer(Protocol):
    """Completes captions."""

    def write(self, captions: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """A completion of each caption's prompt, for `triplet.parse`. It depends on the caption and its seed."""


@dataclass(frozen=True)
class Sampling:
    """How a language model writes; the paper's settings (InstructPix2Pix, section 3.1.1 and its released code)."""

    temperature: float = 0.7
    top_p: float = 1.0
    frequency_penalty: float = 0.1
    max_tokens: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.temperature <= 2:
            raise BadInput(f"temperature is {self.temperature}; it must be above 0 and at most 2")
        if not 0 < self.top_p <= 1:
            raise BadInput(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not -2 <= self.frequency_penalty <= 2:
            raise BadInput(f"frequency_penalty is {self.frequency_penalty}; it must be from -2 to 2")
        if self.max_tokens < 1:
            raise BadInput(f"max_tokens is {self.max_tokens}; it must be at least 1")


class GrammarWriter:
    """Knows the pocket world: parses a caption into its scene, draws an edit of it, and says both."""

    def write(self, captions: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """A caption that is none of the world's is answered with nothing, which no reader takes for a triplet."""
        return [self._written(caption, seed) for caption, seed in zip(captions, seeds, strict=True)]

    def _written(self, caption: str, seed: int) -> str:
        from ...pocket import language
        from ...pocket.scene import random_edit

        try:
            scene = language.parse_caption(caption)
        except BadInput:
            return ""
        rng = np.random.default_rng(seed)
        edit = random_edit(scene, rng)
        instruction = language.instruction(scene, edit, rng)
        return completion(Triplet(caption, instruction, language.edited_caption(caption, edit.scene, rng)))


class TransformersWriter:
    """A causal language model in Hugging Face's form, finetuned on triplets or told of them by its training.

    Each row samples with its own noise (the Gumbel-max form of sampling), so what a caption gets does not depend on the
    captions that share its batch, but for the rounding of a padded batch's arithmetic, and for answers that are cut off
    where the longest caption of the batch reaches the end of the model's context.
    """

    def __init__(self, model: str, sampling: Sampling, device: str = "cpu") -> None:
        """
        Args:
            model: a folder, a hub id, or a name in `SHIPPED`.

        Raises:
            ModelError: `model` is no causal language model that can be loaded.
        """
        self._tokenizer, loaded = load_language_model(model)
        self._tokenizer.padding_side = "left"
        self._model = loaded.to(device).eval()
        self._sampling = sampling

    def write(self, captions: Sequence[str], seeds: Sequence[int]) -> list[str]:
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList, StopStringCriteria

        given = self._tokenizer([prompt(caption) for caption in captions], return_tensors="pt", padding=True)
        given = given.to(self._model.device)
        start = given.input_ids.shape[1]
        longest = self._sampling.max_tokens
        if (context := getattr(self._model.config, "max_position_embeddings", None)) is not None:
            longest = min(longest, context - start)
        if longest < 1:
            return [""] * len(captions)  # no room to answer, and no reader takes this for a triplet
        with torch.inference_mode():
            written = self._model.generate(
                **given,
                do_sample=False,  # the processor below has drawn already
                num_beams=1,
                max_new_tokens=longest,
                pad_token_id=self._tokenizer.pad_token_id,
                logits_processor=LogitsProcessorList([_Draw(self._sampling, start, seeds)]),
                stopping_criteria=StoppingCriteriaList([StopStringCriteria(self._tokenizer, [END])]),
            )
        return self._tokenizer.batch_decode(written[:, start:], skip_special_tokens=True)


def load_language_model(model: str) -> tuple[Any, Any]:
    """A tokenizer that can pad, and a causal language model, of a folder, a hub id, or a name in `SHIPPED`.

    Raises:
        ModelError: there is none that can be loaded.
        MissingExtra: without transformers.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingExtra("a language model", "train") from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(SHIPPED.get(model, model))
        loaded: Any = AutoModelForCausalLM.from_pretrained(SHIPPED.get(model, model))
    except (OSError, ValueError) as error:
        raise ModelError(f"{model} is no causal language model that loads: {error}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, loaded


class _Draw:
    """Turns logits into scores whose largest is a sample: penalty, temperature, nucleus, a row's own Gumbel noise."""

    def __init__(self, sampling: Sampling, start: int, seeds: Sequence[int]) -> None:
        self._sampling, self._start = sampling, start
        self._rngs = [np.random.Generator(np.random.Philox(key=seed)) for seed in seeds]

    def __call__(self, tokens: Any, logits: Any) -> Any:
        import torch

        scores = logits.float()
        new = tokens[:, self._start :]
        if new.shape[1]:
            counts = torch.zeros_like(scores).scatter_add_(1, new, torch.ones_like(new, dtype=scores.dtype))
            scores = scores - self._sampling.frequency_penalty * counts
        scores = scores / self._sampling.temperature
        if self._sampling.top_p < 1:
            ordered, order = scores.softmax(-1).sort(descending=True)
            # a token stays while those before it do not yet make up the share
            beyond = ordered.cumsum(-1) - ordered >= self._sampling.top_p
            scores = scores.masked_fill(torch.zeros_like(beyond).scatter_(1, order, beyond), float("-inf"))
        noise = np.stack([rng.gumbel(size=scores.shape[1]) for rng in self._rngs])
        return scores + torch.from_numpy(noise).to(scores)
