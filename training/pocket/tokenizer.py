"""The tokenizer: CLIP's form of byte-pair encoding, its merges learnt from the world's own sentences."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .language import vocabulary

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 77
_SUFFIX = "</w>"
# CLIP's rule for what is a word; merges never cross words
_WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def build_tokenizer(sentences: list[str] | None = None, entries: int = 1024) -> CLIPTokenizer:
    """A CLIPTokenizer of at most `entries` entries; its merges come from `sentences` (default: the world's vocabulary).

    As in CLIP, the entries are the 256 bytes, the 256 bytes that end a word, the merges in the order learnt, start and
    end: any text at all can be encoded, and the end token has the highest number.
    """
    vocabulary_, merges = _learn(vocabulary() if sentences is None else sentences, entries)
    # merges as pairs is what every version takes, whatever the annotation of the newest says
    return CLIPTokenizer(vocab=vocabulary_, merges=merges, model_max_length=CONTEXT)  # type: ignore[arg-type]


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Writes the folder in both forms: tokenizer.json, and the vocab.json + merges.txt that older readers want."""
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")


def _learn(sentences: list[str], entries: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    learner = Tokenizer(models.BPE(end_of_word_suffix=_SUFFIX))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=entries, end_of_word_suffix=_SUFFIX, show_progress=False)
    # sorted and once each: the merges must not depend on the order of the sentences
    learner.train_from_iterator(sorted(set(sentences)), trainer)
    learnt = json.loads(learner.to_str())["model"]["merges"]

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [tuple(pair) for pair in learnt][: entries - 2 * len(bytes_) - 2]
    words = [*bytes_, *(byte + _SUFFIX for byte in bytes_), *("".join(pair) for pair in merges), START, END]
    return {word: index for index, word in enumerate(words)}, merges
