"""Hugging Face's columns: what `datasets` makes of ours, and what is read of others'."""

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from small_pairs import RECORDS, pair, picture

from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.forms.formats import read_pairs
from ip2p_fast.training.dataset.forms.parquet_form import write_parquet
from ip2p_fast.training.dataset.forms.record import PairRecord


def test_the_datasets_library_sees_pictures_and_numbers(tmp_path):
    write_parquet(RECORDS, tmp_path / "set.parquet")
    rows = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "set.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows.column_names[:5] == [
        "original_prompt",
        "original_image",
        "edit_prompt",
        "edited_prompt",
        "edited_image",
    ]
    assert rows.features["original_image"] == rows.features["edited_image"] == datasets.Image()
    assert isinstance(rows[0]["edited_image"], Image.Image) and rows[0]["edited_image"].size == (16, 12)
    assert rows[0]["seed"] == 1000 and rows[0]["similarities"]["image"] == 0.875
    assert rows[5]["seed"] is None and rows[5]["edit_prompt"] == "make it night"


def fusing(count=3):
    """A data set with the columns of fusing/instructpix2pix-1000-samples."""
    cell = {"path": None}
    columns = {
        "input_image": [{"bytes": picture(n), **cell} for n in range(count)],
        "edit_prompt": [f"make it {n}" for n in range(count)],
        "edited_image": [{"bytes": picture(n + 50), **cell} for n in range(count)],
    }
    features = {
        "input_image": datasets.Image(),
        "edit_prompt": datasets.Value("string"),
        "edited_image": datasets.Image(),
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def expected(prefix, count=3):
    return [PairRecord(f"{prefix}-{n:07d}", picture(n), picture(n + 50), f"make it {n}") for n in range(count)]


def test_what_the_datasets_library_writes_is_read(tmp_path):
    (tmp_path / "data").mkdir()
    fusing().to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
    assert list(read_pairs(tmp_path)) == expected("train-00000-of-00001")


def test_a_data_set_of_the_hub_is_streamed(monkeypatch):
    asked = []

    def load_dataset(name, split, streaming):
        asked.append((name, split, streaming))
        return fusing().to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(read_pairs("someone/pairs:test")) == expected("test")
    assert next(read_pairs("someone/pairs")).key == "train-0000000"
    assert asked == [("someone/pairs", "test", True), ("someone/pairs", "train", True)]


def parquet_of(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_an_empty_cell_is_a_fault_of_its_record_alone(tmp_path):
    path = parquet_of(
        tmp_path / "x.parquet",
        input_image=[None, picture()],
        edit_prompt=[None, "a"],
        edited_image=[picture(), picture()],
    )
    first, second = read_pairs(path)
    assert (first.input_image, first.instruction) == (b"", "") and second.instruction == "a"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b""], "text": ["a"]}, "has the columns image text; looked for original_prompt original_image"),
        (
            {"input_image": ["http://x/y.jpg"], "edit_prompt": ["a"], "edited_image": [b"x"]},
            "x-0000000: the input image is 'http://x/y.jpg', not the bytes",
        ),
        (
            {"input_image": [{"bytes": None, "path": "a.jpg"}], "edit_prompt": ["a"], "edited_image": [b"x"]},
            "the input image is 'a.jpg', not the bytes",
        ),
        ({"input_image": [b"x"], "edit_prompt": [3], "edited_image": [b"x"]}, "the instruction is 3, not text"),
    ],
)
def test_parquet_that_cannot_be_used_is_named(columns, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        list(read_pairs(parquet_of(tmp_path / "x.parquet", **columns)))


@pytest.mark.parametrize("kept", [0, 10, 3000])
def test_parquet_cut_short_is_named(kept, tmp_path):
    write_parquet(RECORDS, tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:kept])
    with pytest.raises(BadInput, match=r"x\.parquet cannot be read as parquet"):
        list(read_pairs(tmp_path / "x.parquet"))


def test_a_seed_beyond_64_bits_is_refused_by_parquet(tmp_path):
    with pytest.raises(BadInput, match="does not fit"):
        write_parquet([pair(0, seed=2**64)], tmp_path / "x.parquet")
