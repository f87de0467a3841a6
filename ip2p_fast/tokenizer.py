"""CLIP's tokenizer on the `tokenizers` library alone: a service that runs an exported bundle needs no transformers.

The ids are those of transformers' CLIPTokenizerFast with padding="max_length", truncation=True; what was cut is told.
(The slow one, gone since transformers 5, cleans rare characters with ftfy first; plain text is the same.)
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from .errors import ModelError
from .model_files import read_json

MAX_LENGTH = 77


class Encoded(NamedTuple):
    """Token ids, int64 [length]: start, text, end, padding; and the text that did not fit, "" if all did."""

    ids: np.ndarray
    overflow: str


@dataclass(frozen=True)
class Tokenizer:
    """Text -> ids. It holds no state that encoding changes, so one may serve many requests at once."""

    backend: Backend
    start_id: int
    end_id: int
    pad_id: int
    length: int = MAX_LENGTH
    vectors: dict[str, str] = field(default_factory=dict)
    """Textual inversion: a concept of several vectors -> the tokens it stands for, as "<cat>" -> "<cat> <cat>_1"."""

    @classmethod
    def from_folder(cls, folder: str | Path) -> "Tokenizer":
        """From a folder of vocab.json and merges.txt, or tokenizer.json, with tokenizer_config.json where there is one.

        Raises:
            ModelError: a file is absent or damaged, or the special tokens are not in the vocabulary.
        """
        return _from_folder(cls, Path(folder))

    @classmethod
    def from_transformers(cls, tokenizer: Any) -> "Tokenizer":
        """From a transformers CLIPTokenizer, slow or fast, with the tokens added to it (textual inversion)."""
        with tempfile.TemporaryDirectory() as folder:  # its files are its one form common to all versions
            tokenizer.save_pretrained(folder)
            return cls.from_folder(folder)

    @property
    def size(self) -> int:
        """One more than the largest id: the rows that a text encoder's embedding must have."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> Encoded:
        encoding = self.backend.encode(text, add_special_tokens=False)
        # As diffusers does before it encodes: each multi-vector concept is written out.
        for token in set(encoding.tokens) & self.vectors.keys():
            text = text.replace(token, self.vectors[token])
            encoding = self.backend.encode(text, add_special_tokens=False)
        room = self.length - 2
        ids = np.full(self.length, self.pad_id, np.int64)
        kept = encoding.ids[:room]
        ids[0] = self.start_id
        ids[1 : len(kept) + 1] = kept
        ids[len(kept) + 1] = self.end_id
        overflow = text[encoding.offsets[room][0] :].strip() if len(encoding.ids) > room else ""
        return Encoded(ids, overflow)


def _from_folder(cls: type[Tokenizer], folder: Path) -> Tokenizer:
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such tokenizer folder")
    try:
        return _read(cls, folder)
    except ModelError:
        raise
    except Exception as error:  # the library raises bare Exception; damaged files give anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{folder} holds no CLIP tokenizer, or a damaged one: {reason}") from None


def _read(cls: type[Tokenizer], folder: Path) -> Tokenizer:
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    vocabulary, merges, added = _vocabulary(folder)
    if "added_tokens_decoder" in config:
        added |= {int(id): token for id, token in config["added_tokens_decoder"].items()}
    elif (folder / "special_tokens_map.json").exists():
        # Only files without the newer key keep the truth here; Stable Diffusion 2 does: it pads with "!".
        config |= read_json(folder / "special_tokens_map.json")
    special = {name: config.get(f"{name}_token") or "<|endoftext|>" for name in ("eos", "unk", "pad")}
    special["bos"] = config.get("bos_token") or "<|startoftext|>"

    backend = _backend(vocabulary, merges, _content(special["unk"]))
    _add(backend, added, special.values())
    ids = {name: backend.get_vocab(with_added_tokens=True)[_content(token)] for name, token in special.items()}
    length = config.get("model_max_length") or MAX_LENGTH
    return cls(
        backend,
        start_id=ids["bos"],
        end_id=ids["eos"],
        pad_id=ids["pad"],
        length=int(length) if length <= 10**6 else MAX_LENGTH,  # transformers writes 1e30 for "none"
        vectors=_vectors([_content(token) for token in added.values()]),
    )


def _vocabulary(folder: Path) -> tuple[dict[str, int], list[Any], dict[int, Any]]:
    """The BPE's tokens and its merges (pairs), and the tokens added to them by id."""
    added: dict[int, Any] = {}
    if (folder / "added_tokens.json").exists():
        added = {id: token for token, id in read_json(folder / "added_tokens.json").items()}
    if (folder / "tokenizer.json").exists():
        whole = read_json(folder / "tokenizer.json")
        merges: list[Any] = [
            tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in whole["model"]["merges"]
        ]
        added |= {token.pop("id"): token for token in whole.get("added_tokens", [])}
        return whole["model"]["vocab"], merges, added
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: no such file; a tokenizer needs it, or tokenizer.json")
    return *BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt")), added


def _backend(vocabulary: dict[str, int], merges: list[Any], unknown: str) -> Backend:
    """The pipeline of CLIP's byte-level BPE (Radford et al. 2021): lower case, words, digits one by one, merges."""
    model = BPE(vocabulary, merges, unk_token=unknown, end_of_word_suffix="</w>", continuing_subword_prefix="")
    backend = Backend(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return backend


def _add(backend: Backend, added: dict[int, Any], special: Iterable[Any]) -> None:
    """Add tokens in the order of their ids, then the special ones that were not among them."""
    for id, token in sorted(added.items(), key=lambda item: item[0]):
        backend.add_tokens([_added(token, special=False)])
        if backend.token_to_id(_content(token)) != id:
            raise ValueError(f"the added token {_content(token)!r} should have id {id}")
    listed = {_content(token) for token in added.values()}
    # A special token is matched whole in the text before the BPE sees it, even if it is a plain one such as "!".
    for token in special:
        if _content(token) not in listed:
            backend.add_tokens([_added(token, special=True)])


def _added(token: Any, special: bool) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=special, normalized=not special)
    flags = {key: token[key] for key in ("lstrip", "rstrip", "normalized", "single_word") if key in token}
    return AddedToken(token["content"], special=token.get("special", special) or special, **flags)


def _content(token: Any) -> str:
    return token if isinstance(token, str) else token["content"]


def _vectors(tokens: list[str]) -> dict[str, str]:
    known, vectors = set(tokens), {}
    for token in tokens:
        names = [token]
        while f"{token}_{len(names)}" in known:
            names.append(f"{token}_{len(names)}")
        if len(names) > 1:
            vectors[token] = " ".join(names)
    return vectors
