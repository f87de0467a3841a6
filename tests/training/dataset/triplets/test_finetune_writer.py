"""A language model is finetuned on triplets: what the loss counts, what is saved, what is reported."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from ip2p_fast.cli import main
from ip2p_fast.errors import BadInput, ModelError
from ip2p_fast.training.dataset.triplets.finetune_writer import (
    Finetuning,
    _encoded,
    finetune_writer,
    perplexity,
    split_triplets,
)
from ip2p_fast.training.dataset.triplets.triplet import Triplet, completion, prompt
from ip2p_fast.training.dataset.triplets.writers import SHIPPED, Sampling
from ip2p_fast.training.dataset.triplets.written import read_triplets
from ip2p_fast.training.pocket.writer import WRITTEN

TRIPLETS = read_triplets(WRITTEN)[:40]
QUICK = Finetuning(epochs=1, batch=8, learning_rate=5e-3, held_out=0.2, sampling=Sampling(max_tokens=8))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small GPT-2 of random weights with the shipped writer's tokenizer."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED["pocket-writer"])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_the_loss_counts_the_completion_and_its_end_alone(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    triplet = TRIPLETS[0]
    row = _encoded(triplet, tokenizer, AutoModelForCausalLM.from_pretrained(model))
    counted = [label for label in row["labels"] if label != -100]
    assert tokenizer.decode(counted) == completion(triplet) + tokenizer.eos_token
    assert tokenizer.decode(row["input_ids"]) == prompt(triplet.caption) + completion(triplet) + tokenizer.eos_token
    assert row["input_ids"][-len(counted) :] == counted


def test_perplexity_is_that_of_the_models_own_loss(model):
    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    loaded.requires_grad_(False)
    total = count = 0.0
    for triplet in TRIPLETS[:5]:
        row = {name: torch.tensor([values]) for name, values in _encoded(triplet, tokenizer, loaded).items()}
        tokens = int((row["labels"] != -100).sum())
        total, count = total + float(loaded(**row).loss) * tokens, count + tokens
    assert perplexity(model, TRIPLETS[:5]) == pytest.approx(math.exp(total / count), rel=1e-4)


def test_finetuning_lowers_the_perplexity_of_what_it_has_not_seen(model, tmp_path):
    told = []
    report = finetune_writer(TRIPLETS, model, tmp_path / "out", QUICK, lambda *step: told.append(step))
    _, held_out = split_triplets(TRIPLETS, 0.2)
    assert (report.trained, report.held_out) == (32, 8) and told == [(n, 4) for n in (1, 2, 3, 4)]
    assert report.perplexity == pytest.approx(perplexity(str(tmp_path / "out"), held_out))
    assert report.perplexity < 0.7 * perplexity(model, held_out)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.use_cache
    assert report.valid == 0.0  # eight tokens are too few for any answer


def test_the_same_seed_gives_the_same_weights(model, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        settings = Finetuning(batch=8, held_out=0.0, seed=seed)
        report = finetune_writer(TRIPLETS[:16], model, tmp_path / name, settings)
        assert report.perplexity is None and report.valid is None
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_low_rank_updates_are_merged_into_a_plain_model(model, tmp_path):
    settings = Finetuning(epochs=2, batch=4, learning_rate=1e-2, held_out=0.0, lora_rank=2)
    finetune_writer(TRIPLETS[:8], model, tmp_path / "lora", settings)
    GPT2LMHeadModel.from_pretrained(tmp_path / "lora")
    assert not list((tmp_path / "lora").glob("adapter*"))
    before, after = AutoModelForCausalLM.from_pretrained(model).state_dict(), weights(tmp_path / "lora")
    change = after["transformer.h.0.attn.c_attn.weight"] - before["transformer.h.0.attn.c_attn.weight"]
    assert torch.linalg.matrix_rank(change, rtol=1e-3) in (1, 2)
    assert torch.equal(after["transformer.wte.weight"], before["transformer.wte.weight"])


def test_the_held_out_share_is_spread_and_always_the_same():
    numbers = [Triplet(str(n), "a", "b") for n in range(1, 21)]
    trained, held_out = split_triplets(numbers, 0.1)
    assert [triplet.caption for triplet in held_out] == ["10", "20"] and len(trained) == 18
    assert split_triplets(numbers, 0.0) == (numbers, [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": -1.0}, "learning rate is -1.0"),
        ({"held_out": 0.9}, "held-out share is 0.9"),
        ({"device": "tpu"}, "no device 'tpu'"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(BadInput, match=message):
        Finetuning(**settings)


def test_what_cannot_be_finetuned_is_refused_before_work_starts(model, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "theirs").write_text("x")
    with pytest.raises(BadInput, match="full is there already"):
        finetune_writer(TRIPLETS, model, tmp_path / "full", QUICK)
    with pytest.raises(ModelError, match="is no causal language model"):
        finetune_writer(TRIPLETS, str(tmp_path / "full"), tmp_path / "out", QUICK)
    long = Triplet("very " * 200 + "long", "make it red", "red")
    with pytest.raises(BadInput, match="tokens long; the model takes 128: leave it out"):
        finetune_writer([*TRIPLETS, long], model, tmp_path / "out", QUICK)  # the 41st is trained on
    with pytest.raises(BadInput, match="tokens long"):
        finetune_writer([*TRIPLETS[:4], long], model, tmp_path / "out", QUICK)  # the fifth is held out
    assert not (tmp_path / "out").exists()


def test_the_command_reports_and_names_a_malformed_line(model, tmp_path, capfd):
    source, out = tmp_path / "written.jsonl", tmp_path / "out"
    rows = [json.dumps({"caption": t.caption, "edit": t.edit, "output": t.output}) for t in TRIPLETS[:10]]
    source.write_text("\n".join([*rows, '{"caption": "a cat"}']))
    command = ["dataset", "finetune-writer", str(source), "-o", str(out), "--model", model, "--json"]
    assert main(command) == 2
    assert "line 11: no 'edit'; it has 'caption'" in capfd.readouterr().err
    source.write_text("\n".join(rows))
    assert main(command) == 0
    report = json.loads(capfd.readouterr().out)
    assert (report["trained"], report["held_out"]) == (9, 1) and report["perplexity"] > 1
    assert main(command) == 2 and "is there already" in capfd.readouterr().err
