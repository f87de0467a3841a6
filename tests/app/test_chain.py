"""The history of a page: tries of one picture, going on from a result, and the way back and forth."""

import pytest
from PIL import Image

from ip2p_fast.app import chain as chains
from ip2p_fast.errors import BadInput


def picture(grey=0):
    return Image.new("RGB", (8, 8), (grey, grey, grey))


@pytest.fixture
def tried():
    """A picture and two tries of it."""
    chain = chains.add(chains.start(picture()), picture(1), "make it night", 7)
    return chains.add(chain, picture(2), "make it night", 8)


def seeds(chain):
    return [entry.seed for entry in chain.entries]


def test_an_edit_after_an_edit_tries_the_same_picture_again(tried):
    assert seeds(tried) == [None, 7, 8]
    assert tried.compares and tried.shown.seed == 8
    assert all(entry.source is tried.entries[0] for entry in tried.entries[1:])


def test_going_on_makes_the_result_what_is_edited(tried):
    further = chains.add(chains.keep(tried), picture(3), "make it snow", 9)
    assert further.shown.source.seed == 8 and further.base.seed == 8
    assert not chains.keep(tried).compares


def test_undo_goes_back_to_what_the_picture_was_made_of_and_redo_forth(tried):
    further = chains.add(chains.keep(tried), picture(3), "make it snow", 9)
    back = chains.undo(further)
    assert back.shown.seed == 8 and back.base is back.shown
    first = chains.undo(back)
    assert first.shown.seed is None and not chains.can_undo(first) and chains.undo(first) is first
    again = chains.redo(first)
    assert again.shown.seed == 8 and again.base.seed is None
    assert chains.redo(again).shown.seed == 9 and not chains.redo(again).undone


def test_an_edit_after_undo_forgets_what_was_undone_but_not_its_picture(tried):
    chain = chains.add(chains.undo(tried), picture(4), "make it rain", 3)
    assert chain.undone == () and seeds(chain) == [None, 7, 8, 3]
    assert chains.redo(chain) is chain


def test_an_earlier_picture_is_shown_beside_its_source(tried):
    chain = chains.show(tried, 1)
    assert chain.shown.seed == 7 and chain.base is tried.entries[0] and chain.at == 1
    assert not chains.show(tried, 0).compares
    with pytest.raises(BadInput, match="has no picture 3"):
        chains.show(tried, 3)


def test_the_oldest_tries_are_forgotten_but_never_what_the_shown_picture_comes_from():
    chain = chains.add(chains.start(picture()), picture(), "first", 0)
    chain = chains.keep(chain)
    for seed in range(1, 2 * chains.MAX_PICTURES):
        chain = chains.add(chain, picture(), "again", seed)
        assert len(chain.entries) <= chains.MAX_PICTURES
    assert seeds(chain)[:2] == [None, 0] and seeds(chain)[-1] == 2 * chains.MAX_PICTURES - 1


def test_a_chain_that_is_too_long_is_refused():
    chain = chains.start(picture())
    with pytest.raises(BadInput, match="start again from it"):
        for seed in range(chains.MAX_PICTURES):
            chain = chains.keep(chains.add(chain, picture(), "on and on", seed))
    assert len(chain.entries) == chains.MAX_PICTURES
