"""The pocket tokenizer is CLIP's form: any library that reads CLIP's files reads it alike."""

import json

import numpy as np
import pytest
from transformers import CLIPTokenizer

from ip2p_fast.checkpoints import POCKET
from ip2p_fast.tokenizer import Tokenizer
from ip2p_fast.training.pocket.language import caption, instruction
from ip2p_fast.training.pocket.split import draw_pair
from ip2p_fast.training.pocket.tokenizer import build_tokenizer, save_tokenizer

TEXTS = ["make it night", "Make it NIGHT!", "", "turn the 3 cats blue", "l'été à la plage — 夜", "x" * 40]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = build_tokenizer()
    save_tokenizer(tokenizer, folder)
    return tokenizer, folder


def test_the_folder_reads_back_as_what_was_built(built):
    tokenizer, folder = built
    again = CLIPTokenizer.from_pretrained(folder)
    assert [again(text).input_ids for text in TEXTS] == [tokenizer(text).input_ids for text in TEXTS]


def test_old_and_new_file_forms_agree(built):
    tokenizer, folder = built
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]]
    old = CLIPTokenizer(vocab=json.loads((folder / "vocab.json").read_text(encoding="utf-8")), merges=merges)
    assert [old(text).input_ids for text in TEXTS] == [tokenizer(text).input_ids for text in TEXTS]


def test_the_runtime_reads_it_alike(built):
    tokenizer, folder = built
    ours = Tokenizer.from_folder(folder)
    for text in TEXTS:
        padded = tokenizer(text, padding="max_length", truncation=True, max_length=77).input_ids
        assert list(ours.encode(text)[0]) == padded


def test_every_text_can_be_encoded_and_the_end_has_the_highest_number(built):
    tokenizer, _ = built
    assert tokenizer.eos_token_id == len(tokenizer) - 1 == tokenizer.bos_token_id + 1
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.eos_token_id) == 1


def test_the_order_of_the_sentences_does_not_matter():
    sentences = ["make it night", "make it snow", "a red cat in the snow"]
    assert build_tokenizer(sentences, 540).get_vocab() == build_tokenizer(sentences[::-1], 540).get_vocab()


def test_the_words_of_the_world_are_few_tokens(built):
    tokenizer, _ = built
    rng = np.random.default_rng(0)
    for i in range(50):
        pair = draw_pair("train", i)
        for text in (caption(pair.scene, rng), instruction(pair.scene, pair.edit, rng)):
            assert len(tokenizer(text).input_ids) <= 2 + 1.6 * len(text.replace(",", " ,").split())


def test_the_shipped_tokenizer_is_what_the_world_gives(built):
    assert CLIPTokenizer.from_pretrained(POCKET / "tokenizer").get_vocab() == built[0].get_vocab()
