"""A caption after an edit is the caption before, but for the words that the edit changes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ip2p_fast.errors import BadInput
from ip2p_fast.training.pocket.language import caption, edited_caption, parse_caption
from ip2p_fast.training.pocket.phrases import PHRASES
from ip2p_fast.training.pocket.scene import edits, random_edit, random_scene

seeds = st.integers(0, 2**32 - 1)


@given(seeds)
@settings(max_examples=300, deadline=None)
def test_it_says_the_edited_scene_and_keeps_the_phrase_of_every_value_that_stays(seed):
    rng = np.random.default_rng(seed)
    scene = random_scene(rng)
    text, edit = caption(scene, rng), random_edit(scene, rng)
    edited = edited_caption(text, edit.scene, rng)
    assert parse_caption(edited) == edit.scene
    for slot, values in PHRASES.items():
        value = getattr(scene, slot)
        if value == getattr(edit.scene, slot) and value in values:
            assert any(phrase in text and phrase in edited for phrase in values[value])


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_every_edit_of_a_scene_reads_back_with_and_without_chance(seed):
    rng = np.random.default_rng(seed)
    scene = random_scene(rng)
    text = caption(scene, rng)
    for edit in edits(scene):
        for chance in (None, rng):
            assert parse_caption(edited_caption(text, edit.scene, chance)) == edit.scene


@given(seeds)
@settings(max_examples=200, deadline=None)
def test_words_outside_the_changed_phrase_are_untouched(seed):
    """Where no subject comes or goes, the texts are equal before and behind one phrase."""
    rng = np.random.default_rng(seed)
    scene = random_scene(rng)
    text, edit = caption(scene, rng), random_edit(scene, rng)
    if edit.kind in ("add", "remove"):
        return
    before, after = text.split(" "), edited_caption(text, edit.scene, rng).split(" ")
    same = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    behind = next(i for i, (a, b) in enumerate(zip(before[::-1], after[::-1], strict=False)) if a != b)
    changed = " ".join(before[same : len(before) - behind])
    longest = max(
        len(phrase.split()) for values in PHRASES.values() for options in values.values() for phrase in options
    )
    assert len(changed.split()) <= longest


def test_a_caption_of_the_same_scene_is_the_caption_itself():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = random_scene(rng)
        text = caption(scene, rng)
        assert edited_caption(text, scene, rng) == text


@pytest.mark.parametrize(
    ("text", "change", "edited"),
    [
        (
            "by moonlight, in thick fog: an aquarelle of two red cats to the right, at the seaside",
            {"count": 1},
            "by moonlight, in thick fog: an aquarelle of a red cat to the right, at the seaside",
        ),
        (
            "by moonlight, in thick fog: an aquarelle of two red cats to the right, at the seaside",
            {"time": "day"},
            "by day, in thick fog: an aquarelle of two red cats to the right, at the seaside",
        ),
        (
            "by moonlight, in thick fog: an aquarelle of two red cats to the right, at the seaside",
            {"subject": "nothing", "colour": "none", "count": 0, "position": "none"},
            "by moonlight, in thick fog: an aquarelle of nothing but the view at the seaside",
        ),
        (
            "an empty scene on a beach, at night and in the rain, as a watercolour",
            {"subject": "boat", "colour": "blue", "count": 1, "position": "left"},
            "a blue boat on the left, on a beach, at night, in the rain, as a watercolour",
        ),
    ],
)
def test_examples(text, change, edited):
    assert edited_caption(text, replace(parse_caption(text), **change)) == edited


def test_what_is_no_caption_has_no_edited_one():
    with pytest.raises(BadInput, match="not a caption"):
        edited_caption("a photo of a dog", parse_caption(caption(random_scene(np.random.default_rng(0)))))
