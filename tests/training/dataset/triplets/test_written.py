"""Triplets that people wrote: the forms their files have, and the 700 of the pocket world."""

import json
from collections import Counter

import numpy as np
import pytest

from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.triplets.triplet import Triplet
from ip2p_fast.training.dataset.triplets.written import read_triplets
from ip2p_fast.training.pocket.language import instruction, parse_caption
from ip2p_fast.training.pocket.phrases import PHRASES, SCENE_INSTRUCTIONS
from ip2p_fast.training.pocket.scene import ATTRIBUTES
from ip2p_fast.training.pocket.split import KINDS, is_held_out
from ip2p_fast.training.pocket.writer import WRITTEN
from ip2p_fast.training.pocket.writer_figures import edit_done


def test_lines_may_have_any_of_the_forms_in_use(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"caption": "a cat", "edit": "make it red", "output": "a red cat"},
        {"input": "a cat", "edit": "make it red", "output": "a red cat", "url": "u"},
        {"prompt": "a cat\n##\n", "completion": " make it red\n%%\na red cat\nEND"},
    ]
    path.write_text("\n\n".join(map(json.dumps, rows)))
    assert read_triplets(path) == [Triplet("a cat", "make it red", "a red cat")] * 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ('{"caption": "a", "edit": "b"}', "line 2: no 'output'; it has 'caption', 'edit'"),
        ('{"caption": "a", "edit": 3, "output": "c"}', "line 2: 'edit' is int, not text"),
        ('{"caption": "a", "edit": " ", "output": "c"}', "line 2: the instruction is empty"),
        ('{"caption": "a\\nb", "edit": "b", "output": "c"}', "line 2: the caption is empty, or holds a delimiter"),
        ('{"prompt": "a", "completion": "b"}', "line 2: 0 separators"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text('{"caption": "a", "edit": "b", "output": "c"}\n' + line + "\n")
    with pytest.raises(BadInput, match=message):
        read_triplets(path)


def test_many_malformed_lines_are_counted_and_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("x\n" * 8)
    with pytest.raises(BadInput, match="line 1: .*line 5: .*; and 3 more lines$"):
        read_triplets(path)
    path.write_text("\n")
    with pytest.raises(BadInput, match="holds no triplet"):
        read_triplets(path)
    with pytest.raises(BadInput, match="is not there"):
        read_triplets(tmp_path / "b.jsonl")


# The pocket world's


@pytest.fixture(scope="module")
def written():
    return read_triplets(WRITTEN)


def test_there_are_700_triplets_of_700_captions_in_hundreds_of_instructions(written):
    assert len(written) == 700 == len({triplet.caption for triplet in written})
    assert len({triplet.edit for triplet in written}) >= 350


def test_every_one_is_a_single_edit_of_a_scene_that_is_not_held_out(written):
    for triplet in written:
        assert edit_done(triplet) is not None, triplet
        assert not is_held_out(parse_caption(triplet.caption)) and not is_held_out(parse_caption(triplet.output))


def test_every_kind_of_edit_and_every_value_comes_up(written):
    kinds, values = Counter(), Counter()
    for triplet in written:
        edit = edit_done(triplet)
        kinds[edit.kind] += 1
        values.update({(name, str(getattr(edit.scene, name))) for name in ATTRIBUTES if name == edit.kind})
    assert set(kinds) == set(KINDS) and min(kinds.values()) >= 40
    for name in ATTRIBUTES:
        absent = {"subject": "nothing", "colour": "none", "count": "0", "position": "none"}.get(name)
        assert all(values[name, value] >= 3 for value in ATTRIBUTES[name] if value != absent)


def test_only_one_phrase_differs_where_no_subject_comes_or_goes(written):
    longest = max(
        len(phrase.split()) for values in PHRASES.values() for options in values.values() for phrase in options
    )
    for triplet in written:
        if edit_done(triplet).kind in ("add", "remove"):
            continue
        before, after = triplet.caption.split(), triplet.output.split()
        first = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
        last = next(i for i, (a, b) in enumerate(zip(before[::-1], after[::-1], strict=False)) if a != b)
        assert len(before) - last - first <= longest, triplet


def test_most_are_not_in_the_words_of_the_grammar(written):
    fixed = {text for kind in SCENE_INSTRUCTIONS.values() for options in kind.values() for text in options}
    rng = np.random.default_rng(0)
    known = 0
    for triplet in written:
        scene, edit = parse_caption(triplet.caption), edit_done(triplet)
        said = {instruction(scene, edit, rng) for _ in range(100)}
        known += triplet.edit in said or triplet.edit in fixed
    assert known < 0.1 * len(written)
