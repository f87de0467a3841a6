"""Captions out of the files people have."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.triplets.captions import Caption, read_captions


def read(path, **options):
    return list(read_captions(str(path), **options))


def test_text_has_a_caption_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a cat\n\n  two   dogs \n", encoding="utf-8")
    assert read(path) == [Caption(1, "a cat"), Caption(2, ""), Caption(3, "two dogs")]


def test_json_lines_that_cannot_be_read_keep_their_number(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [json.dumps({"caption": "a cat", "url": "u"}), "{broken", "[1]", '{"other": 1}', '{"caption": 3}']
    path.write_text("\n".join(rows), encoding="utf-8")
    found = read(path)
    assert found[0] == Caption(1, "a cat", "u")
    assert [caption.line for caption in found] == [1, 2, 3, 4, 5]
    faults = [caption.fault for caption in found[1:]]
    assert faults[0].startswith("not JSON: ") and faults[1:] == [
        "not a JSON object",
        "no 'caption'",
        "the caption is int, not text",
    ]


def test_the_column_can_be_named_and_its_released_name_is_known(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("TEXT,input,url\nfrom TEXT,from input,u\n", encoding="utf-8")
    assert read(path) == [Caption(1, "from input", "u")]
    assert read(path, column="TEXT", url_column="nowhere") == [Caption(1, "from TEXT")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.txt", None, "absent.txt is not there"),
        ("a.png", "x", "captions are read from .txt, .jsonl, .csv, .parquet"),
        ("a.csv", "one,two\n1,2\n", "has no column 'caption'; it has one, two"),
    ],
)
def test_a_source_without_captions_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=message):
        read(tmp_path / name)


def test_parquet_and_a_data_set_of_the_hub_layout(tmp_path):
    table = pyarrow.table({"input": ["a cat", None], "url": ["u", "v"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert found[0] == Caption(1, "a cat", "u") and found[1].fault == "the caption is NoneType, not text"

    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"caption": "a boat"}\n')
    with pytest.raises(BadInput, match="captions are read from"):
        read(tmp_path / "set")


def test_a_hub_data_set_that_is_not_there_is_one_clear_line(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BadInput, match="nobody/nothing is neither a file here nor a data set that can be loaded"):
        read("nobody/nothing")
