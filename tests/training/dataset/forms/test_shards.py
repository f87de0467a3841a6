"""WebDataset's form: what the library reads and writes, and shards that are damaged or not finished."""

import io
import json
import tarfile

import pytest
import webdataset
from small_pairs import RECORDS, bare, pair, picture

from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.forms.formats import read_pairs
from ip2p_fast.training.dataset.forms.shards import END, members, read_shard, tar_bytes, write_shard, write_shards

ENDINGS = ("input.jpg", "edited.jpg", "json")


def test_a_record_is_three_members_that_depend_on_nothing_else():
    assert [name for name, _ in members(pair(0))] == [
        f"0000000-1000.{end}" for end in ("input.jpg", "edited.jpg", "json")
    ]
    assert json.loads(members(pair(0))[2][1])["similarities"]["direction"] == -0.125
    assert tar_bytes(pair(0)) == tar_bytes(pair(0))
    with tarfile.open(fileobj=io.BytesIO(tar_bytes(pair(0)) + tar_bytes(bare(1)) + END)) as tar:
        found = tar.getmembers()
        assert [member.name.partition(".")[0] for member in found] == ["0000000-1000"] * 3 + ["row-1"] * 3
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in found} == {(0, 0, 0, 0o644, "")}
        opened = tar.extractfile(found[1])
        assert opened is not None and opened.read() == pair(0).edited_image


def test_the_webdataset_library_groups_the_members(tmp_path):
    write_shard(RECORDS, tmp_path / "set.tar")
    samples = list(webdataset.WebDataset(str(tmp_path / "set.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [record.key for record in RECORDS]
    assert [sample["input.jpg"] for sample in samples] == [record.input_image for record in RECORDS]
    decoded = next(iter(webdataset.WebDataset(str(tmp_path / "set.tar"), shardshuffle=False).decode("pil")))
    assert decoded["edited.jpg"].size == (16, 12)
    assert decoded["json"]["instruction"] == "make it 0"


def test_a_shard_of_the_webdataset_library_is_read(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "set.tar")) as sink:
        for number in range(2):
            sink.write(
                {
                    "__key__": f"Part_A/{number:04d}",
                    "input.png": picture(form="PNG"),
                    "edited.png": picture(1, form="PNG"),
                    "json": {"instruction": "make it night", "license": "cc0"},
                    "txt": "not ours",
                }
            )
    first, second = read_pairs(tmp_path / "set.tar")
    assert (first.key, second.key) == ("part-a-0000", "part-a-0001")
    assert first.input_image == picture(form="PNG") and first.instruction == "make it night"


@pytest.mark.parametrize("kept", range(0, 100, 7))
def test_a_shard_cut_anywhere_is_refused_with_its_file_and_place(kept, tmp_path):
    whole = b"".join(map(tar_bytes, RECORDS))
    path = tmp_path / "cut.tar"
    path.write_bytes(whole[: len(whole) * kept // 100])
    with pytest.raises(BadInput, match=r"cut\.tar"):
        list(read_shard(path))


def test_a_shard_without_its_end_gives_its_records_and_then_says_so(tmp_path):
    path = tmp_path / "open.tar"
    path.write_bytes(tar_bytes(pair(0)) + tar_bytes(pair(1)))
    reading = read_shard(path)
    assert next(reading) == pair(0)
    with pytest.raises(BadInput, match=r"open\.tar is no whole tar file.* 0000000-1001"):
        list(reading)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    data = bytearray(tar_bytes(pair(0)) + tar_bytes(pair(1)) + END)
    data[len(tar_bytes(pair(0))) + 3] ^= 0xFF
    (tmp_path / "set.tar").write_bytes(data)
    with pytest.raises(BadInput, match=r"set\.tar .*0000000-1000"):
        list(read_shard(tmp_path / "set.tar"))


def tar_of(path, contents):
    with tarfile.open(path, "w") as tar:
        for name, data in contents:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[:2], r"x\.tar, 0000000-1000: there is no member \.json; it has \.input\.jpg, \.edited\.jpg"),
        (lambda m: m[1:], r"x\.tar, 0000000-1000: there is no member \.input\.jpg"),
        (lambda m: [m[0], *m], r"x\.tar, 0000000-1000: two members are called \.input\.jpg"),
        (lambda m: [*m[:2], (m[2][0], b"{")], r"x\.tar, 0000000-1000: \.json cannot be read"),
        (lambda m: [*m[:2], (m[2][0], b"[]")], r"x\.tar, 0000000-1000: \.json holds list"),
        (lambda m: [*m[:2], (m[2][0], b'{"p": "much"}')], r"x\.tar, 0000000-1000: p is 'much', not a number"),
        (lambda m: [*m[:2], (m[2][0], b'{"seed": 0.5}')], r"seed is 0\.5, not a whole number"),
        (lambda m: [*m[:2], (m[2][0], b'{"caption": 3}')], "the caption is 3, not text"),
        (
            lambda m: [*m[:2], (m[2][0], b'{"similarities": {"image": 1}}')],
            "similarities lack text_image_0, text_image_1",
        ),
    ],
)
def test_a_record_that_is_not_whole_is_named(change, message, tmp_path):
    path = tar_of(tmp_path / "x.tar", [*change(members(pair(0))), *members(pair(1))])
    with pytest.raises(BadInput, match=message):
        list(read_shard(path))


@pytest.mark.parametrize("other", [{"key": "a.b"}, {"key": "A"}, {"key": ""}, {"p": float("nan")}])
def test_what_a_shard_cannot_hold_is_refused(other):
    with pytest.raises(BadInput):
        tar_bytes(pair(0, **other))


def test_shards_hold_as_many_records_as_asked_for(tmp_path):
    write_shards(RECORDS, tmp_path / "set", 3)
    counts = [sum(1 for _ in read_shard(path)) for path in sorted((tmp_path / "set").iterdir())]
    assert counts == [3, 3, 2]
    assert list(read_pairs(tmp_path / "set")) == RECORDS
