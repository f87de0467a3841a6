"""The tokenizer gives the ids of transformers' fast tokenizer (its only one since version 5), and says what it cut."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ip2p_fast.errors import ModelError
from ip2p_fast.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

TEXTS = [
    "",
    " ",
    "make it night",
    "Make   it\tNIGHT!\n",
    "turn the 2 red boats into 13 blue ones, please...",
    "it's the cat's; they'll say we've won",
    "café, naïve, Straße, Ελλάδα, 東京, a\u0301 (combining)",
    "add a 🐱 and a 👨‍👩‍👧 family",
    "<|endoftext|> in the <|startoftext|> text",
    "!!! wow ! what!",
    "</w> <unk> \x00 \ufffd",
    "make it night " * 40,
    "supercalifragilistic" * 20,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """vocab.json and merges.txt of a small byte-level BPE, trained here."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, trainers

    backend = Backend(models.BPE(end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    backend.train_from_iterator([text.lower() for text in TEXTS[:11]] * 3, trainer)
    vocabulary = backend.get_vocab()
    for token in [f"{letter}</w>" for letter in sorted(alphabet)] + ["<|startoftext|>", "<|endoftext|>"]:
        vocabulary.setdefault(token, len(vocabulary))
    path = tmp_path_factory.mktemp("tokenizer")
    (path / "vocab.json").write_text(json.dumps(vocabulary))
    merges = json.loads(backend.to_str())["model"]["merges"]
    (path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges))
    return path


def stable_diffusion_2(folder, tmp_path):
    """The files as Stable Diffusion 2 has them: the special tokens' map, which wins, pads with "!"."""
    shutil.copytree(folder, tmp_path / "sd2")
    (tmp_path / "sd2" / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 77, "pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer"})
    )
    token = {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    (tmp_path / "sd2" / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": token, "pad_token": "!", "bos_token": token | {"content": "<|startoftext|>"}})
    )
    return tmp_path / "sd2"


def saved_by_transformers(folder, tmp_path):
    transformers.CLIPTokenizerFast.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def expected(tokenizer, text):
    return tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="np").input_ids[0]


@pytest.mark.parametrize("layout", [lambda folder, _: folder, stable_diffusion_2, saved_by_transformers])
def test_ids_are_those_of_transformers(folder, tmp_path, layout):
    path = layout(folder, tmp_path)
    theirs, ours = transformers.CLIPTokenizerFast.from_pretrained(path), Tokenizer.from_folder(path)
    for text in TEXTS:
        ids = ours.encode(text).ids
        assert (ids.dtype, ids.shape) == (np.int64, (77,))
        np.testing.assert_array_equal(ids, expected(theirs, text), err_msg=repr(text))


def test_the_layouts_pad_differently(folder, tmp_path):
    plain, second = Tokenizer.from_folder(folder), Tokenizer.from_folder(stable_diffusion_2(folder, tmp_path))
    assert plain.encode("").ids[2] == plain.end_id
    assert second.encode("").ids[2] == second.pad_id == second.backend.token_to_id("!") != second.end_id


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=120))
def test_any_text_encodes_as_in_transformers(shared, text):
    theirs, ours = shared
    np.testing.assert_array_equal(ours.encode(text).ids, expected(theirs, text))


@pytest.fixture(scope="module")
def shared(folder):
    return transformers.CLIPTokenizerFast.from_pretrained(folder), Tokenizer.from_folder(folder)


def test_overflow_is_the_text_that_was_cut(folder):
    tokenizer = Tokenizer.from_folder(folder)
    words = ["night"] * 74
    assert tokenizer.encode(" ".join([*words, "night"])).overflow == ""
    encoded = tokenizer.encode(" ".join([*words, "night", "Make it", "NIGHT!"]))
    assert encoded.overflow == "Make it NIGHT!"
    assert encoded.ids[76] == tokenizer.end_id and encoded.ids[75] == encoded.ids[1]


def with_inversions(folder):
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens(["<cat>", "<cat>_1", "<cat>_2", "<Dog>"])
    return tokenizer


def test_textual_inversion_tokens_are_kept_and_written_out(folder):
    from diffusers.loaders import TextualInversionLoaderMixin

    theirs = with_inversions(folder)
    ours = Tokenizer.from_transformers(theirs)
    assert ours.size == len(theirs)
    for text in ("a <cat> by night", "<cat><cat>, and a <dog>", "a cat", "a <Dog>"):
        converted = TextualInversionLoaderMixin().maybe_convert_prompt(text, theirs)
        np.testing.assert_array_equal(ours.encode(text).ids, expected(theirs, converted), err_msg=text)
    assert list(ours.encode("<cat>").ids[1:4]) == theirs.convert_tokens_to_ids(["<cat>", "<cat>_1", "<cat>_2"])


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("vocab.json", None, "vocab.json: no such file"),
        ("merges.txt", None, "merges.txt: no such file"),
        ("vocab.json", "{", "no CLIP tokenizer"),
        ("vocab.json", '{"a": 0}', "no CLIP tokenizer"),
        ("merges.txt", "#version: 0.2\nq z x", "no CLIP tokenizer"),
        ("tokenizer.json", "[]", "tokenizer.json is damaged"),
        ("tokenizer.json", "{}", "no CLIP tokenizer"),
        ("tokenizer_config.json", "nonsense", "tokenizer_config.json is damaged"),
    ],
)
def test_damaged_files_are_named(folder, tmp_path, name, content, reason):
    path = tmp_path / "copy"
    shutil.copytree(folder, path)
    if content is None:
        (path / name).unlink()
    else:
        (path / name).write_text(content)
    with pytest.raises(ModelError, match=reason) as caught:
        Tokenizer.from_folder(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
