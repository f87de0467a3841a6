"""The pocket writer: its tokenizer and texts, a tiny one trained and published, the shipped one, and its figures."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_size import TINY
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Tokenizer

from ip2p_fast.benchmarks.results import read_results
from ip2p_fast.cli import main
from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.triplets.triplet import Triplet, completion, parse, prompt
from ip2p_fast.training.dataset.triplets.writers import SHIPPED, Sampling, TransformersWriter
from ip2p_fast.training.pocket.language import caption, parse_caption
from ip2p_fast.training.pocket.loop import Run
from ip2p_fast.training.pocket.split import draw_pair, is_held_out
from ip2p_fast.training.pocket.writer import END_OF_TEXT, build_writer_tokenizer, grammar_triplet, train_writer
from ip2p_fast.training.pocket.writer_figures import (
    BEGIN,
    END,
    WriterReport,
    draw_writer_table,
    edit_done,
    measure_writer,
    record_writer,
)

REPORT = WriterReport(0.97, 0.93, 0.91, 0.8, 2.5, 5000, {"add": 0.4, "time": 0.6})
SAMPLING = Sampling()
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ip2p_fast.training.pocket.writer._TEXTS", 50)
        figures = train_writer(TINY, Run(folder / "writer.pt"), folder / "model")
    return folder / "model", figures


def test_any_text_survives_the_tokenizer():
    tokenizer = build_writer_tokenizer(["a red cat on a beach", "make it night"])
    for text in (
        "a red cat\n##\nmake it night\n%%\na red cat at night\nEND",
        "Crème brûlée, 猫 and 🎈",
        " two  spaces ",
    ):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer(END_OF_TEXT).input_ids == [tokenizer.eos_token_id]


def test_texts_of_the_grammar_are_triplets_of_scenes_that_are_not_held_out():
    rng = np.random.default_rng(0)
    for _ in range(200):
        triplet = grammar_triplet(rng)
        assert edit_done(triplet) is not None
        assert parse(triplet.caption, completion(triplet)) == triplet
        assert not is_held_out(parse_caption(triplet.caption)) and not is_held_out(parse_caption(triplet.output))


def test_a_trained_writer_is_a_folder_that_others_load(tiny):
    folder, figures = tiny
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32 and isinstance(tokenizer, GPT2Tokenizer)
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float16}
    assert figures["writer_parameters"] == model.num_parameters() and figures["writer_perplexity"] > 1
    assert model.generation_config.do_sample and model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_chat_of_it_is_its_last_message_unchanged(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny[0])
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": prompt("a cat")}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == prompt("a cat")


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("a clean render of two red cats on the left, in a meadow, by day, in the rain", "count"),
        ("a clean render of a red cat on the right, in a meadow, by day, in the rain", "position"),
        ("a clean render of nothing in a meadow, by day, in the rain", "remove"),
        ("a clean render of two blue cats on the left, in a meadow, by day, in the rain", None),
        ("a clean render of a red cat on the left, in a green meadow, by day, in the rain", None),
        ("a clean render of two red cat on the left, in a meadow, by day, in the rain", None),
        ("a photo of a cat", None),
    ],
)
def test_an_edit_is_right_if_it_is_one_and_only_one(output, kind):
    edit = edit_done(Triplet("a clean render of a red cat on the left, in a meadow, by day, in the rain", "x", output))
    assert (None if edit is None else edit.kind) == kind


def test_figures_are_recorded_and_drawn_between_the_marks(tmp_path):
    record_writer(tmp_path / "pocket-writer.json", REPORT)
    rows = {row.id: row for row in read_results(tmp_path / "pocket-writer.json").rows}
    assert rows["pocket.writer.parse"].met and rows["pocket.writer.right"].met
    assert (rows["pocket.writer.parse"].target, rows["pocket.writer.right"].target) == (0.95, 0.90)
    assert rows["pocket.writer.perplexity"].value == 2.5
    document = tmp_path / "a.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    draw_writer_table(document, tmp_path / "pocket-writer.json")
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text and "97.0%" in text
    document.write_text("no marks")
    with pytest.raises(BadInput, match="needs one line"):
        draw_writer_table(document, tmp_path / "pocket-writer.json")


# The shipped writer


def test_the_shipped_writer_is_small():
    files = [path for path in SHIPPED["pocket-writer"].rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8 * MEBIBYTE


def test_the_shipped_writer_writes_triplets_of_scenes_it_has_never_seen():
    report = measure_writer("pocket-writer", 96, 96)
    assert report.parse > 0.9 and report.right > 0.8 and report.own_words > 0.1
    assert report.triplets == 96 and sum(report.by_kind.values()) == pytest.approx(1)


def test_the_shipped_writer_keeps_the_words_that_its_edit_leaves_alone():
    captions = [caption(draw_pair("held-out", n).scene, np.random.default_rng(n)) for n in range(64)]
    lost = []
    for text, answer in zip(
        captions, TransformersWriter("pocket-writer", SAMPLING).write(captions, range(64)), strict=True
    ):
        output = answer.partition("\n%%\n")[2].removesuffix("\nEND")
        edit = edit_done(Triplet(text, "x", output))
        if edit is not None and edit.kind not in ("add", "remove"):
            lost.append(len(set(text.split()) - set(output.split())))
    # no phrase has more words than six
    assert len(lost) > 20 and np.mean([words <= 6 for words in lost]) > 0.95


def test_the_command_measures_and_records(tmp_path, capsys):
    out = tmp_path / "writer.json"
    command = ["evaluate", "writer", "--limit", "3", "--batch", "4", "--json"]
    assert main([*command, "--record", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["triplets"] == 3 and 0 < report["right"] <= 1
    assert read_results(out).rerun == f"ip2p-fast evaluate writer --limit 3 --record {out.as_posix()}"
    assert main([*command, "--document", str(out)]) == 2


def test_a_model_that_writes_no_triplets_is_not_asked_for_ever(tiny, monkeypatch):
    with pytest.raises(BadInput, match="it is no writer of triplets"):
        measure_writer(str(tiny[0]), 2, 4)
