"""Held-out scenes and layouts never meet the trained ones, and the same index is always the same pair."""

import numpy as np
import pytest

from ip2p_fast.errors import BadInput
from ip2p_fast.training.pocket.data import draw_pairs, load_pairs, render_pairs
from ip2p_fast.training.pocket.scene import Edit, random_scene
from ip2p_fast.training.pocket.split import KINDS, draw_pair, is_held_out


def test_a_pair_is_the_same_whenever_it_is_drawn():
    assert [draw_pair("train", i) for i in range(20)] == [draw_pair("train", i) for i in range(20)]


def test_no_training_pair_touches_a_held_out_scene_and_every_held_out_pair_starts_from_one():
    for i in range(300):
        pair = draw_pair("train", i)
        assert not is_held_out(pair.scene) and not is_held_out(pair.edit.scene)
        assert is_held_out(draw_pair("held-out", i).scene)


def test_layout_seeds_of_the_two_splits_come_from_ranges_that_do_not_meet():
    last_of_training = draw_pair("train", 2**30 - 1).seed
    assert last_of_training < draw_pair("held-out", 0).seed
    with pytest.raises(BadInput, match="outside"):
        draw_pair("train", 2**30)


def test_about_one_scene_in_sixteen_is_held_out():
    rng = np.random.default_rng(0)
    share = np.mean([is_held_out(random_scene(rng)) for _ in range(4000)])
    assert 0.045 < share < 0.08


def test_every_kind_of_edit_is_drawn():
    kinds = {draw_pair("train", i).edit.kind for i in range(400)}
    assert kinds == set(KINDS)


def test_an_unknown_split_is_refused():
    with pytest.raises(BadInput, match="'test'"):
        draw_pair("test", 0)


def test_pairs_read_back_from_disk_are_the_pairs_that_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("ip2p_fast.training.pocket.data._SHARD", 4)
    # 4 pairs are one shard, which is rendered in this process
    render_pairs(tmp_path, "train", 16, 4)
    read, drawn = load_pairs(tmp_path, "train", 16, 4), draw_pairs("train", 4, 16)
    np.testing.assert_array_equal(read.pixels, drawn.pixels)
    np.testing.assert_array_equal(read.labels, drawn.labels)
    np.testing.assert_array_equal(read.kinds, drawn.kinds)


def test_shards_that_are_there_are_not_rendered_again(tmp_path, monkeypatch):
    monkeypatch.setattr("ip2p_fast.training.pocket.data._SHARD", 4)
    render_pairs(tmp_path, "train", 16, 4)
    (shard,) = tmp_path.iterdir()
    written = shard.stat().st_mtime_ns
    render_pairs(tmp_path, "train", 16, 4)
    assert shard.stat().st_mtime_ns == written


def test_pairs_that_were_not_rendered_are_an_error_that_names_the_command(tmp_path):
    with pytest.raises(BadInput, match="train pocket data"):
        load_pairs(tmp_path, "train", 16, 4)


def test_a_pair_reads_backwards_as_the_edit_that_undoes_it():
    pairs = draw_pairs("train", 60, 8)
    for i in range(len(pairs)):
        before, edit = pairs.edit(i)
        after, undo = pairs.edit(i, backwards=True)
        assert (after, undo.scene) == (edit.scene, before)
        assert undo == Edit({"add": "remove", "remove": "add"}.get(edit.kind, edit.kind), before)
