"""The language model as a writer: a real one of random weights, and the sampling that it is put under."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ip2p_fast.errors import BadInput, ModelError
from ip2p_fast.training.dataset.triplets.writers import Sampling, TransformersWriter, _Draw


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A GPT-2 of random weights over bytes."""
    folder = tmp_path_factory.mktemp("gpt2")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({letter: i for i, letter in enumerate([*letters, "<|end|>"])}, []))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|end|>").save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=257, n_positions=64, n_embd=32, n_layer=2, n_head=2, eos_token_id=256)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


def test_a_caption_gets_the_same_text_alone_and_in_company(model):
    writer = TransformersWriter(model, Sampling(max_tokens=12))
    captions, seeds = ["a cat", "two red boats at sea", "a house"], [5, 6, 7]
    together = writer.write(captions, seeds)
    alone = [writer.write([caption], [seed])[0] for caption, seed in zip(captions, seeds, strict=True)]
    assert together == alone
    assert writer.write(["a cat"], [8]) != alone[:1]


def test_an_answer_ends_with_the_models_context_and_a_caption_that_fills_it_gets_none(model):
    writer = TransformersWriter(model, Sampling(max_tokens=256))  # of a context of 64 bytes
    assert len(writer.write(["a cat"], [1])[0]) > 0
    assert writer.write(["a" * 70], [1]) == [""]


def test_the_draw_is_a_sample_of_the_softmax():
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0]])
    counts = torch.zeros(4)
    for seed in range(4000):
        counts[_Draw(Sampling(temperature=0.5), 0, [seed])(torch.zeros(1, 0, dtype=torch.long), logits).argmax()] += 1
    torch.testing.assert_close(counts / 4000, (logits[0] / 0.5).softmax(-1), atol=0.03, rtol=0)


def test_the_nucleus_keeps_the_likeliest_tokens_up_to_its_share():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = _Draw(Sampling(temperature=1.0, top_p=0.7), 0, [0])(torch.zeros(1, 0, dtype=torch.long), logits).isfinite()
    assert kept.tolist() == [[True, True, False, False]]


def test_a_token_written_before_is_penalised_once_a_time():
    draw = lambda tokens: _Draw(Sampling(temperature=1.0, frequency_penalty=0.5), 1, [3])(  # noqa: E731
        torch.tensor([tokens]), torch.zeros(1, 4)
    )
    difference = draw([0]) - draw([0, 2, 2, 1])
    torch.testing.assert_close(difference, torch.tensor([[0.0, 0.5, 1.0, 0.0]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"frequency_penalty": 3.0}, "frequency_penalty is 3.0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(BadInput, match=message):
        Sampling(**settings)


def test_what_is_no_language_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is no causal language model"):
        TransformersWriter(str(tmp_path), Sampling())
