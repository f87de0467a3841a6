"""The forms of a data set: each keeps every byte and number, and what is in none of them is refused."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pairs import RECORDS, pair

from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.forms.folder_form import write_folder
from ip2p_fast.training.dataset.forms.formats import read_pairs, writer_for
from ip2p_fast.training.dataset.forms.parquet_form import write_parquet
from ip2p_fast.training.dataset.forms.record import PairRecord, Similarities
from ip2p_fast.training.dataset.forms.shards import tar_bytes, write_shard, write_shards

WRITERS = {
    "set.tar": write_shard,
    "shards": lambda records, out: write_shards(records, out, 2),
    "folder": write_folder,
    "set.parquet": write_parquet,
}

cosine = st.floats(-1, 1)
text = st.text(st.characters(codec="utf-8"), max_size=20)
records = st.builds(
    PairRecord,
    key=st.from_regex(r"[a-z0-9-]{1,120}", fullmatch=True),
    input_image=st.binary(max_size=1100),
    edited_image=st.binary(max_size=1100),
    instruction=text,
    caption=st.none() | text,
    edited_caption=st.none() | text,
    seed=st.none() | st.integers(0, 2**64 - 1),
    p=st.none() | st.floats(0, 1),
    cfg=st.none() | st.floats(0.1, 100),
    similarities=st.none() | st.builds(Similarities, cosine, cosine, cosine, cosine),
)


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    """RECORDS in one of the forms."""
    out = tmp_path / request.param
    assert WRITERS[request.param](RECORDS, out) == len(RECORDS)
    return out


def test_every_form_reads_back_what_was_written(written):
    assert list(read_pairs(written)) == RECORDS


@pytest.mark.parametrize("name", WRITERS)
def test_any_form_becomes_any_other(written, name, tmp_path):
    out = tmp_path / f"again-{name}"
    WRITERS[name](read_pairs(written), out)
    assert list(read_pairs(str(out))) == RECORDS


@settings(max_examples=25, deadline=None)
@given(st.lists(records, min_size=1, max_size=6, unique_by=lambda record: record.key))
def test_no_text_number_or_byte_changes_in_any_form(tmp_path_factory, several):
    folder = tmp_path_factory.mktemp("forms")
    for name, write in WRITERS.items():
        write(several, folder / name)
        assert list(read_pairs(folder / name)) == several


def test_output_that_is_there_is_refused_and_left_alone(written):
    before = sorted(written.parent.rglob("*"))
    with pytest.raises(BadInput, match="is there already"):
        WRITERS[written.name]([pair(9)], written)
    assert sorted(written.parent.rglob("*")) == before
    assert list(read_pairs(written)) == RECORDS


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("given_records", "message"),
    [
        ([], "no records"),
        ([pair(0), pair(1), pair(2, key=pair(0).key)], "0000000-1000"),
    ],
)
def test_writing_that_fails_leaves_nothing(name, given_records, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        WRITERS[name](given_records, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_reader_that_fails_leaves_nothing_written(name, tmp_path):
    def broken():
        yield from RECORDS[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        WRITERS[name](broken(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_memory_does_not_grow_with_the_set(name, tmp_path):
    data = bytes(100_000)

    def big(count):
        return (pair(number, input_image=data, edited_image=data) for number in range(count))

    def peak(count):
        tracemalloc.start()
        out = tmp_path / str(count) / name
        WRITERS[name](big(count), out)
        assert sum(1 for _ in read_pairs(out)) == count
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    # the set is 80 MB; a reader or writer of batches holds at most 64 records, twice
    assert peak(400) < 30_000_000


def test_what_is_in_no_form_is_refused_at_once(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    for source, message in (
        (tmp_path / "notes.txt", "is in no form we read; looked for a .tar shard"),
        (tmp_path / "empty", r"holds no pairs; looked for \*\.tar"),
        (tmp_path / "absent", "is not there"),
        ("absent/set.tar", "is not there"),
    ):
        with pytest.raises(BadInput, match=message):
            read_pairs(source)


def test_a_folder_of_two_forms_is_refused(tmp_path):
    write_shard(RECORDS, tmp_path / "x.tar")
    write_parquet(RECORDS, tmp_path / "x.parquet")
    with pytest.raises(BadInput, match="several forms at once"):
        read_pairs(tmp_path)


def test_what_a_killed_writer_left_is_not_read(tmp_path):
    write_shard(RECORDS[:2], tmp_path / "x.tar")
    (tmp_path / ".y.tar.0123.part").write_bytes(tar_bytes(pair(4)))
    assert list(read_pairs(tmp_path)) == RECORDS[:2]


@pytest.mark.parametrize(
    ("out", "form", "each"),
    [
        ("a", "zip", None),
        ("a", "parquet", None),
        ("a.parquet", "folder", None),
        ("a.tar", "folder", None),
        ("a.tar", "webdataset", 3),
        ("a", "folder", 3),
        ("a", "webdataset", 0),
    ],
)
def test_an_output_that_does_not_suit_its_form_is_refused(out, form, each, tmp_path):
    with pytest.raises(BadInput):
        writer_for(tmp_path / out, form, each)
