"""Control of the attention to the text, as Hertz et al. 2022 write it: on maps, with loops."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from ip2p_fast.errors import BadInput
from ip2p_fast.tokenizer import Tokenizer
from ip2p_fast.training.dataset.pairs.text_control import (
    Control,
    Words,
    local_blend,
    refinement,
    replacement,
    text_controls,
)

STEPS = 10
CAT = "a watercolour of a red cat at night"
DOG = "a watercolour of a blue dog at night"
MORE = "a soft watercolour of a red cat, at night in winter"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.from_transformers(tiny.tokenizer(tmp_path_factory.mktemp("tokens")))


@pytest.fixture
def maps():
    """Attention of 5 pixels to 77 tokens, of the source and the target's own; each row sums to 1."""
    return np.random.default_rng(0).dirichlet(np.ones(77), size=(2, 5))


def applied(control, maps):
    return maps[0] @ control.matrix + maps[1] * control.own


def one(tokenizer, control, source, target, step=0):
    return text_controls(control, tokenizer, source, target, STEPS)[step]


def test_words_know_their_tokens(tokenizer):
    words = Words(tokenizer, CAT)
    ids = tokenizer.encode(CAT).ids
    assert words.names == CAT.split()
    assert [token for tokens in words.tokens for token in tokens] == list(range(1, words.end))
    assert ids[words.end] == tokenizer.end_id
    assert words.of("CAT") == words.tokens[5] and words.of("horse") == []


def test_a_replaced_word_takes_over_the_attention_of_the_word_in_its_place(tokenizer, maps):
    changed = applied(one(tokenizer, Control("replace"), CAT, DOG), maps)
    source, target = Words(tokenizer, CAT), Words(tokenizer, DOG)
    for theirs, ours in zip(source.tokens, target.tokens, strict=True):
        if len(theirs) == len(ours):
            np.testing.assert_allclose(changed[:, ours], maps[0][:, theirs], rtol=1e-6)
        else:  # spread evenly
            total = maps[0][:, theirs].sum(1)
            np.testing.assert_allclose(changed[:, ours], np.repeat(total[:, None] / len(ours), len(ours), 1), rtol=1e-6)
    np.testing.assert_allclose(changed.sum(1), 1, rtol=1e-6)


def test_words_can_be_replaced_only_among_as_many(tokenizer):
    with pytest.raises(BadInput, match="has 8, .* has 12; choose refine or auto"):
        text_controls(Control("replace"), tokenizer, CAT, MORE, STEPS)


def test_refinement_keeps_the_attention_to_common_tokens_and_the_new_ones_their_own(tokenizer, maps):
    changed = applied(one(tokenizer, Control("refine"), CAT, MORE), maps)
    source, target = Words(tokenizer, CAT), Words(tokenizer, MORE)
    for word, place in (("watercolour", 1), ("cat", 5), ("night", 7)):
        np.testing.assert_allclose(changed[:, target.of(word)], maps[0][:, source.tokens[place]], rtol=1e-6)
    for word in ("soft", "winter"):
        np.testing.assert_allclose(changed[:, target.of(word)], maps[1][:, target.of(word)], rtol=1e-6)
    np.testing.assert_allclose(changed[:, 0], maps[0][:, 0], rtol=1e-6)


def longest(a, b):
    """Length of the longest common subsequence, by its definition."""
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + longest(a[1:], b[1:])
    return max(longest(a[1:], b), longest(a, b[1:]))


@given(
    st.lists(st.sampled_from(["cat", "night", "winter"]), max_size=6),
    st.lists(st.sampled_from(["cat", "night"]), max_size=6),
)
def test_as_many_tokens_are_aligned_as_can_be_in_order(tokenizer, first, second):
    source, target = Words(tokenizer, " ".join(first)), Words(tokenizer, " ".join(second))
    matrix, own = refinement(source, target)
    pairs = np.argwhere(matrix[1 : source.end, 1 : target.end])
    assert len(pairs) == longest(tuple(source.ids), tuple(target.ids))
    assert (np.diff(pairs, axis=0) > 0).all()
    assert all(source.ids[i] == target.ids[j] for i, j in pairs)
    assert own.sum() == len(target.ids) - len(pairs)


def test_the_same_caption_keeps_the_whole_map(tokenizer):
    words = Words(tokenizer, CAT)
    assert np.array_equal(replacement(words, words), np.eye(77))
    matrix, own = refinement(words, words)
    assert np.array_equal(matrix, np.eye(77)) and not own.any()


def test_a_reweighted_words_attention_is_multiplied(tokenizer, maps):
    plain = applied(one(tokenizer, Control("replace"), CAT, DOG), maps)
    more = applied(one(tokenizer, Control("replace", weights={"dog": 3.0}), CAT, DOG), maps)
    dog = Words(tokenizer, DOG).of("dog")
    np.testing.assert_allclose(more[:, dog], 3 * plain[:, dog], rtol=1e-6)
    others = [token for token in range(77) if token not in dog]
    np.testing.assert_allclose(more[:, others], plain[:, others], rtol=1e-6)


def test_reweighting_alone_multiplies_the_targets_own_attention(tokenizer, maps):
    changed = applied(one(tokenizer, Control(weights={"dog": 0.5}), CAT, DOG), maps)
    expected = maps[1].copy()
    expected[:, Words(tokenizer, DOG).of("dog")] *= 0.5
    np.testing.assert_allclose(changed, expected, rtol=1e-6)


def test_steps_outside_the_span_are_left_alone(tokenizer):
    controls = text_controls(Control("replace", steps=(0.2, 0.6)), tokenizer, CAT, DOG, STEPS)
    assert [control is not None for control in controls] == [2 <= i < 6 for i in range(STEPS)]


def test_a_word_can_have_a_span_of_its_own(tokenizer, maps):
    control = Control("replace", steps=(0.0, 0.8), word_steps={"dog": (0.0, 0.3)})
    controls = text_controls(control, tokenizer, CAT, DOG, STEPS)
    dog, blue = Words(tokenizer, DOG).of("dog"), Words(tokenizer, DOG).of("blue")
    early, late = applied(controls[0], maps), applied(controls[5], maps)
    np.testing.assert_allclose(late[:, dog], maps[1][:, dog], rtol=1e-6)
    np.testing.assert_allclose(late[:, blue], early[:, blue], rtol=1e-6)
    assert not np.allclose(early[:, dog], maps[1][:, dog])
    assert controls[8] is None


def test_auto_replaces_where_it_can_and_refines_elsewhere(tokenizer):
    def matrix(kind, target):
        return one(tokenizer, Control(kind), CAT, target).matrix

    assert np.array_equal(matrix("auto", DOG), matrix("replace", DOG))
    assert np.array_equal(matrix("auto", MORE), matrix("refine", MORE))


def test_no_control_is_none(tokenizer):
    assert text_controls(Control(), tokenizer, CAT, DOG, STEPS) == ()


def test_a_blend_marks_its_words_in_both_captions(tokenizer):
    blend = local_blend(Control(blend=("cat", "dog"), blend_from=0.25), tokenizer, CAT, DOG, 8, downsampling=2)
    assert np.flatnonzero(blend.source_words).tolist() == Words(tokenizer, CAT).of("cat")
    assert np.flatnonzero(blend.words).tolist() == Words(tokenizer, DOG).of("dog")
    assert (blend.first_step, blend.downsampling) == (2, 2)
    assert local_blend(Control(blend=("horse",)), tokenizer, CAT, DOG, 8, 2) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "swap"}, "no control 'swap'"),
        ({"steps": (0.5, 0.2)}, "from 0.5 to 0.2"),
        ({"word_steps": {"cat": (0, 2)}}, "cat from 0 to 2"),
        ({"threshold": 1.5}, "threshold is 1.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        Control(**settings)
