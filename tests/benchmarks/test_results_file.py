"""What a results file holds, and what is refused."""

import json
import math

import pytest

from ip2p_fast.benchmarks.results import Row, parse_results, read_results, write_results
from ip2p_fast.errors import BadInput

ROW = Row("cpu.tiny.speed", 2.5, "x", "higher", 2.0, {"what": "a speed", "p20": 2.25, "p80": 2.75})


@pytest.fixture
def content(tmp_path):
    """A valid file's content, to be spoilt."""
    write_results(tmp_path / "good.json", [ROW], rerun="again")
    return json.loads((tmp_path / "good.json").read_text())


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "new" / "a.json"
    written = write_results(path, [ROW, Row("cpu.tiny.time", 3.0, "s", "lower")], rerun="again")
    assert read_results(path) == written
    assert written.rows[0] == ROW and written.rerun == "again" and not written.quick
    assert written.versions["torch"] and written.machine["cpu"] and written.machine["threads"] >= 1
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_numbers_keep_six_digits(tmp_path):
    row = Row("a.b", 1 / 3, "x", "higher", detail={"all": (2 / 3, 1)})
    (kept,) = write_results(tmp_path / "a.json", [row], rerun="again").rows
    assert kept.value == 0.333333 and kept.detail == {"all": [0.666667, 1]}


@pytest.mark.parametrize("better, value, met", [("higher", 2.0, True), ("higher", 1.9, False), ("lower", 1.9, True)])
def test_a_target_is_met_in_its_own_direction(better, value, met):
    assert Row("a.b", value, "x", better, 2.0).met is met
    assert Row("a.b", value, "x", better).met is None


@pytest.mark.parametrize(
    "change, said",
    [
        ({"id": "Upper.case"}, "lower-case"),
        ({"id": "nodots"}, "lower-case"),
        ({"value": None}, "did not run has no row"),
        ({"value": math.nan}, "finite"),
        ({"value": True}, "finite"),
        ({"value": "2"}, "finite"),
        ({"target": math.inf}, "target"),
        ({"better": "bigger"}, "choose higher or lower"),
        ({"unit": ""}, "unit"),
        ({"detail": []}, "detail"),
        ({"colour": "red"}, "unknown colour"),
    ],
)
def test_a_wrong_row_is_refused_by_name(content, change, said):
    content["rows"][0] |= change
    with pytest.raises(BadInput, match=said) as refusal:
        parse_results(content, "file.json")
    assert str(refusal.value).startswith("file.json: row 0")


@pytest.mark.parametrize("key", ["created", "commit", "machine", "versions", "rows"])
def test_a_file_without_one_of_its_parts_is_refused(content, key):
    del content[key]
    with pytest.raises(BadInput, match=f"{key} missing"):
        parse_results(content, "file.json")


@pytest.mark.parametrize("key", ["id", "value", "unit", "better", "target", "detail"])
def test_a_row_without_one_of_its_parts_is_refused(content, key):
    del content["rows"][0][key]
    with pytest.raises(BadInput, match=f"{key} missing"):
        parse_results(content, "file.json")


def test_other_files_are_refused(content, tmp_path):
    for spoilt in ({**content, "schema": 2}, {**content, "rows": []}, {**content, "extra": 1}, [], None):
        with pytest.raises(BadInput):
            parse_results(spoilt, "file.json")
    with pytest.raises(BadInput, match="more than one row is called cpu.tiny.speed"):
        parse_results({**content, "rows": content["rows"] * 2}, "file.json")
    (tmp_path / "text.json").write_text("{")
    for name in ("text.json", "absent.json"):
        with pytest.raises(BadInput, match=name):
            read_results(tmp_path / name)


def test_wrong_rows_leave_the_old_file_alone(tmp_path):
    path = tmp_path / "a.json"
    write_results(path, [ROW], rerun="again")
    before = path.read_text()
    with pytest.raises(BadInput):
        write_results(path, [ROW, Row("a.b", math.nan, "x", "higher")], rerun="again")
    assert path.read_text() == before
