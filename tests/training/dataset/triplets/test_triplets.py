"""Captions to triplets: the format, the rules, and work that is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.triplets.captions import Caption
from ip2p_fast.training.dataset.triplets.journal import Journal
from ip2p_fast.training.dataset.triplets.triplet import NotATriplet, Triplet, completion, parse, prompt
from ip2p_fast.training.dataset.triplets.writers import GrammarWriter
from ip2p_fast.training.dataset.triplets.writing import Rules, write_triplets
from ip2p_fast.training.pocket.language import caption, parse_caption
from ip2p_fast.training.pocket.split import draw_pair

WORLD = [caption(draw_pair("train", i).scene) for i in range(60)]
words = st.text(
    st.characters(codec="utf-8", exclude_characters="#%\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), min_size=1
)


class Scripted:
    """Answers from a list, one text a call and caption; the last for ever."""

    def __init__(self, *texts):
        self.texts, self.asked = list(texts), []

    def write(self, captions, seeds):
        self.asked.append((list(captions), list(seeds)))
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        return [text] * len(captions)


def test_the_format_is_the_papers():
    triplet = Triplet("a cat", "make it a dog", "a dog")
    assert prompt("a cat") == "a cat\n##\n"
    assert completion(triplet) == "make it a dog\n%%\na dog\nEND"
    assert parse("a cat", completion(triplet) + " and what a model adds") == triplet


@given(words.filter(str.strip), words.filter(lambda w: w.strip() and "END" not in w))
def test_what_is_written_reads_back(edit, output):
    triplet = Triplet("x", edit.strip(), output.strip())
    assert parse("x", completion(triplet)) == triplet


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("make it a dog", "0 separators"),
        ("a\n%%\nb\n%%\nc", "2 separators"),
        ("\n%%\na dog", "instruction is empty"),
        ("make it\n%%\n\nEND", "edited caption is empty"),
        ("make\nit\n%%\na dog", "line break"),
        ("a ## b\n%%\na dog", "delimiter"),
    ],
)
def test_other_texts_are_refused_with_their_fault(text, message):
    with pytest.raises(NotATriplet, match=message):
        parse("a cat", text)


@pytest.mark.parametrize("output", ["A cat on a mat.", "a  cat on a mat", "a cat on a mat!"])
def test_captions_that_differ_in_form_alone_are_no_change(output):
    assert Triplet("a cat on a mat", "do it", output).changes_nothing
    assert not Triplet("a cat on a mat", "do it", "a dog on a mat").changes_nothing


def run(tmp_path, captions, writer, rules=None, name="out.jsonl", resume=False, batch=4):
    with Journal(tmp_path / name, {}, resume) as journal:
        counts = write_triplets(captions, writer, journal, rules or Rules(), batch=batch)
    return counts, [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]


def test_every_caption_is_counted_by_what_became_of_it(tmp_path):
    captions = [
        Caption(1, "a cat", "u1"),
        Caption(2, "a cat", "u2"),
        Caption(3, "a dog", "u1"),
        Caption(4, "", None),
        Caption(5, "x" * 401),
        Caption(6, "", fault="not JSON"),
        Caption(7, "a boat"),
        Caption(8, "a car"),
    ]
    rules = Rules(moderator=lambda texts: "a boat" in texts)
    counts, lines = run(tmp_path, captions, Scripted("make it red\n%%\na red thing\nEND"), rules)
    assert lines == [
        {"caption": "a cat", "edit": "make it red", "output": "a red thing", "url": "u1"},
        {"caption": "a car", "edit": "make it red", "output": "a red thing"},
    ]
    assert {name: count for name, count in counts.items() if count} == {
        "repeated caption": 1,
        "repeated url": 1,
        "empty": 1,
        "too long": 1,
        "unreadable": 1,
        "moderated": 1,
        "written": 2,
    }


def test_a_bad_completion_is_tried_again_with_another_seed(tmp_path):
    writer = Scripted("nonsense", "nonsense", "make it red\n%%\na red cat\nEND")
    counts, lines = run(tmp_path, [Caption(1, "a cat")], writer)
    assert counts["retried"] == 2 and counts["malformed"] == 0 and len(lines) == 1
    seeds = [seeds[0] for _, seeds in writer.asked]
    assert len(set(seeds)) == 3

    counts, lines = run(tmp_path, [Caption(1, "a cat")], Scripted("nonsense"), Rules(retries=1), "other.jsonl")
    assert counts["malformed"] == 1 and counts["retried"] == 1 and lines == []


def test_a_caption_edited_into_itself_is_dropped(tmp_path):
    counts, lines = run(tmp_path, [Caption(1, "a cat")], Scripted("keep it\n%%\nA cat.\nEND"))
    assert counts["no change"] == 1 and lines == []


def test_strict_stops_at_a_line_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInput, match="line 7: not JSON"):
        run(tmp_path, [Caption(7, "", fault="not JSON")], Scripted("x"), Rules(strict=True))


def test_the_grammar_is_right_about_its_world(tmp_path):
    captions = [Caption(i, text) for i, text in enumerate([*WORLD, "a photograph of a horse"], 1)]
    counts, lines = run(tmp_path, captions, GrammarWriter())
    assert counts["malformed"] == 1 and counts["written"] == len(set(WORLD))
    for line in lines:
        before, after = parse_caption(line["caption"]).labels(), parse_caption(line["output"]).labels()
        changed = {name for name in before if before[name] != after[name]}
        assert len(changed) == 1 or changed == {"subject", "colour", "count", "position"}
        # no phrase has more words than six: all others stay, as Prompt-to-Prompt needs it
        if len(changed) == 1:
            assert len(set(line["caption"].split()) - set(line["output"].split())) <= 6


def test_neither_the_batch_nor_a_stop_in_between_changes_what_is_written(tmp_path):
    captions = [Caption(i, text) for i, text in enumerate(WORLD, 1)]
    _, whole = run(tmp_path, captions, GrammarWriter(), name="whole.jsonl", batch=7)
    run(tmp_path, captions[:20], GrammarWriter(), name="parts.jsonl", batch=3)
    _, parts = run(tmp_path, captions, GrammarWriter(), name="parts.jsonl", batch=5, resume=True)
    assert parts == whole


def test_an_output_with_other_settings_is_not_gone_on_with(tmp_path):
    Journal(tmp_path / "a.jsonl", {"seed": 1, "writer": "grammar"}).__exit__(None, None, None)
    with pytest.raises(BadInput, match="is there already: go on with --resume"):
        Journal(tmp_path / "a.jsonl", {"seed": 1, "writer": "grammar"})
    with pytest.raises(BadInput, match="made with other settings: seed 1 then, 2 now$"):
        Journal(tmp_path / "a.jsonl", {"seed": 2, "writer": "grammar"}, resume=True)


def test_a_file_that_is_not_ours_is_left_alone(tmp_path):
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text("their work\n")
    with pytest.raises(BadInput, match="not ours to go on with"):
        Journal(theirs, {}, resume=True)
    assert theirs.read_text() == "their work\n"


def test_a_full_disk_loses_nothing_that_was_there(tmp_path):
    """/dev/full takes no byte, as a full disk; the journal behind it goes on once there is room."""
    with Journal(tmp_path / "a.jsonl", {}) as journal:
        journal.append([{"n": 1}], 1, {"written": 1})
        real = journal._file
        with open("/dev/full", "wb", buffering=0) as journal._file, pytest.raises(OSError, match="No space left"):
            journal.append([{"n": 2}], 1, {"written": 1})
        journal._file = real
    with Journal(tmp_path / "a.jsonl", {}, resume=True) as journal:
        assert journal.inputs == 1
        journal.append([{"n": 2}], 1, {"written": 1})
    assert (tmp_path / "a.jsonl").read_text() == '{"n": 1}\n{"n": 2}\n'


APPEND = """
import sys, itertools
from pathlib import Path
from ip2p_fast.training.dataset.triplets.journal import Journal
with Journal(Path(sys.argv[1]), {}, resume=True) as journal:
    print("ready", flush=True)
    for n in itertools.count(journal.inputs):
        journal.append([{"n": n, "filling": "x" * 5000}], 1, {"written": 1})
"""


def test_kills_at_random_moments_leave_whole_lines_in_order(tmp_path):
    path = tmp_path / "killed.jsonl"
    Journal(path, {}).__exit__(None, None, None)
    chance = random.Random(0)
    reached = []
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", APPEND, str(path)], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0.0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with Journal(path, {}, resume=True) as journal:
            inputs = journal.inputs
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["n"] for line in lines] == list(range(inputs))
        reached.append(inputs)
    assert reached == sorted(reached) and reached[-1] > 0
