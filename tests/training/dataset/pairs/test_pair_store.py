"""Shards that grow: each place where a process can die, one by one. test_pairs.py kills at random ones."""

import hashlib
import json
import tarfile

import pytest

from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.forms.record import PairRecord
from ip2p_fast.training.dataset.forms.shards import read_shard
from ip2p_fast.training.dataset.pairs.pair_store import MANIFEST, SHARDS, PairStore, whole_shards

EACH = 3


def record(number):
    return PairRecord(f"key-{number}", b"before %d" % number, b"after %d" % number, "do it")


def fill(out, first=0, last=7):
    """One record an input; the manifest and the shards at the end."""
    with PairStore(out, {"seed": 1}, EACH, resume=first > 0) as store:
        assert store.inputs == first
        for number in range(first, last):
            store.append([record(number)], 1, {"done": 1})
        store.finish()
    return json.loads((out / MANIFEST).read_text()), whole_shards(out)


class Dies(Exception):
    """Stands for kill -9 at one place."""


def die(*args, **kwargs):
    raise Dies


def test_what_is_put_in_comes_out_in_order(tmp_path):
    _, shards = fill(tmp_path / "out")
    assert [shard["records"] for shard in shards] == [3, 3, 1]
    keys = [one.key for shard in shards for one in read_shard(tmp_path / "out" / shard["name"])]
    assert keys == [f"key-{number}" for number in range(7)]


def test_the_manifest_tells_the_hash_and_size_of_every_shard(tmp_path):
    _, shards = fill(tmp_path / "out")
    for shard in shards:
        content = (tmp_path / "out" / shard["name"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        with tarfile.open(tmp_path / "out" / shard["name"]) as tar:
            assert len(tar.getnames()) == 3 * shard["records"]


@pytest.mark.parametrize(
    ("method", "call"), [("_note", 3), ("_note", 4), ("_finish", 1), ("_open", 2), ("_finish", 2), ("_note", 7)]
)
def test_wherever_it_dies_the_set_is_the_same_in_the_end(tmp_path, monkeypatch, method, call):
    """Before the ledger is told of records, and before and after a shard ends."""
    whole = fill(tmp_path / "whole")
    real, calls = getattr(PairStore, method), []

    def dying(self, *args):
        calls.append(method)
        if len(calls) == call:
            raise Dies
        return real(self, *args)

    with monkeypatch.context() as patch, pytest.raises(Dies):
        patch.setattr(PairStore, method, dying)
        fill(tmp_path / "out")
    inputs = json.loads((tmp_path / "out" / MANIFEST).read_text())["inputs"]
    assert fill(tmp_path / "out", first=inputs) == whole


def test_a_shard_that_was_ended_without_a_word_is_ended_again(tmp_path, monkeypatch):
    whole = fill(tmp_path / "whole")
    real = PairStore._finish

    def ends_and_dies(self):
        with monkeypatch.context() as patch:
            patch.setattr(self._ledger, "save", die)
            real(self)

    with monkeypatch.context() as patch, pytest.raises(Dies):
        patch.setattr(PairStore, "_finish", ends_and_dies)
        fill(tmp_path / "out")
    assert (tmp_path / "out" / "pairs-00000.tar").exists()
    assert whole_shards(tmp_path / "out") == []
    assert len((tmp_path / "out" / SHARDS).read_text().splitlines()) == 1
    assert fill(tmp_path / "out", first=3) == whole


def test_a_finished_set_can_be_resumed_and_stays_as_it_is(tmp_path):
    whole = fill(tmp_path / "out")
    assert fill(tmp_path / "out", first=7) == whole


def test_a_folder_of_someone_elses_is_left_alone(tmp_path):
    (tmp_path / "theirs.txt").write_text("their work")
    with pytest.raises(BadInput, match="not ours to go on with"):
        PairStore(tmp_path, {}, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.txt"]


def test_a_shard_that_someone_cut_is_found_out(tmp_path):
    with PairStore(tmp_path / "out", {}, EACH) as store:
        store.append([record(0)], 1, {})
    (tmp_path / "out" / ".pairs-00000.tar.part").write_bytes(b"")
    with pytest.raises(BadInput, match="shorter than manifest.json says"):
        PairStore(tmp_path / "out", {}, EACH, resume=True)


def test_the_manifest_does_not_grow_with_the_set(tmp_path):
    fill(tmp_path / "small", last=EACH)
    fill(tmp_path / "large", last=30 * EACH)
    small, large = ((tmp_path / name / MANIFEST).stat().st_size for name in ("small", "large"))
    assert large <= small + 10
