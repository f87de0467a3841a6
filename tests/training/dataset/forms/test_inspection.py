"""What inspecting a data set finds and draws, and the two commands."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from small_pairs import bare, pair, picture

from ip2p_fast.cli import main
from ip2p_fast.errors import BadInput
from ip2p_fast.images import load_image
from ip2p_fast.training.dataset.forms.contact_sheet import SIDE, draw_sheet
from ip2p_fast.training.dataset.forms.formats import read_pairs
from ip2p_fast.training.dataset.forms.histograms import draw_histograms
from ip2p_fast.training.dataset.forms.inspection import PAPER_THRESHOLDS, inspect_pairs
from ip2p_fast.training.dataset.forms.record import faults
from ip2p_fast.training.dataset.forms.shards import END, tar_bytes, write_shard

RED = (0xC6, 0x28, 0x28)


def shares(image, colour):
    """Of an image's pixels, which are of a colour: [H, W]."""
    return (np.asarray(image) == np.array(colour)).all(-1)


@pytest.mark.parametrize("record", [pair(0), pair(1), bare(0), pair(0, p=0, seed=0), pair(0, p=1.0)])
def test_a_good_record_has_no_fault(record):
    assert faults(record) == []


SIMILARITIES = pair(0).similarities


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({"key": "a.b"}, "key: 'a.b'"),
        ({"key": ""}, "key: ''"),
        ({"input_image": b""}, "input picture: the picture is empty"),
        ({"edited_image": b"no picture"}, "edited picture: the picture is not a picture"),
        ({"edited_image": picture()[:-40]}, "edited picture: the picture is damaged"),
        ({"edited_image": picture(size=(16, 13))}, "sizes: 16x12 before the edit, 16x13 after it"),
        ({"instruction": " \n"}, "instruction: it is empty"),
        ({"seed": -1}, "seed: -1"),
        ({"p": 1.01}, "p: 1.01"),
        ({"p": float("nan")}, "p: nan"),
        ({"cfg": 0.0}, "cfg: 0.0"),
        ({"cfg": float("inf")}, "cfg: inf"),
        ({"similarities": replace(SIMILARITIES, direction=-1.5)}, "direction: -1.5"),
        ({"similarities": replace(SIMILARITIES, image=float("nan"))}, "image: nan"),
    ],
)
def test_each_fault_is_found_alone(other, fault):
    (found,) = faults(pair(0, **other))
    assert found.startswith(fault)


def test_records_are_counted_and_the_first_faults_named(tmp_path):
    good = [pair(number) for number in range(6)]
    bad = [pair(number, key=f"bad-{number}", p=2.0, cfg=-1.0) for number in range(7)]
    found = inspect_pairs([*good, *bad, good[0]], tmp_path / "new/look", PAPER_THRESHOLDS)
    assert (found.records, found.captions, found.instructions, found.faulty) == (14, 4, 4, 8)
    assert found.faults == {"p": 7, "cfg": 7, "key": 1}
    assert [line.partition(":")[0] for line in found.named] == [f"bad-{number}" for number in range(5)]
    assert found.means["text_image_0"] == pytest.approx(0.25) and found.means["image"] == pytest.approx(0.875)
    assert found.passing == 0  # no direction reaches 0.2
    assert "8 of 14 records are faulty (bad-0: p: 2.0" in found.complaint
    assert sorted(path.name for path in (tmp_path / "new/look").iterdir()) == ["histograms.png", "sheet.png"]


def test_passing_is_at_or_above_every_threshold(tmp_path):
    records = [pair(number) for number in range(6)]  # directions -8/64 to -3/64
    assert inspect_pairs(records, tmp_path, {"direction": -5 / 64}).passing == 3
    assert inspect_pairs([*records, bare(0)], tmp_path, {"direction": -1.0}).passing == 6
    assert inspect_pairs(records, tmp_path).passing is None


def test_what_is_not_finite_spoils_no_mean(tmp_path):
    found = inspect_pairs([pair(0), pair(1, cfg=float("nan")), pair(2, p=float("inf"))], tmp_path)
    assert found.faults == {"cfg": 1, "p": 1}
    assert found.means["cfg"] == pytest.approx((7.5 + 7.5 + 2 / 3) / 2)
    json.dumps(found.as_json(), allow_nan=False)


def test_a_set_that_breaks_off_is_reported_up_to_there(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes(pair(0)) + tar_bytes(pair(1))[:-600])
    found = inspect_pairs(read_pairs(path), tmp_path / "look")
    assert (found.records, found.faulty) == (1, 0)
    assert "reading stopped after 1 records" in found.complaint and "x.tar" in found.complaint
    assert (tmp_path / "look/sheet.png").is_file()


@pytest.mark.parametrize("records", [[], iter(())])
def test_nothing_to_inspect_is_bad_input(records, tmp_path):
    with pytest.raises(BadInput, match="no records"):
        inspect_pairs(records, tmp_path)


def test_the_sheet_shows_both_pictures_by_whole_pixels():
    record = pair(0, input_image=picture(1, (16, 16), "PNG"), edited_image=picture(2, (16, 16), "PNG"))
    sheet = np.asarray(draw_sheet([record], [None]))
    for number, data in ((0, record.input_image), (1, record.edited_image)):
        left = 24 + number * (SIDE + 6)
        shown = sheet[24 : 24 + SIDE, left : left + SIDE]
        np.testing.assert_array_equal(shown, np.asarray(load_image(data)).repeat(SIDE // 16, 0).repeat(SIDE // 16, 1))
    text = sheet[24 + SIDE + 4 : 24 + SIDE + 30]
    assert (text < 100).all(-1).sum() > 100  # the instruction, in ink


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (4, 4, 1), (5, 4, 2), (24, 4, 6)])
def test_the_sheet_has_four_pairs_a_row(count, columns, rows):
    one = draw_sheet([pair(0)], [None])
    sheet = draw_sheet([pair(number) for number in range(count)], [None] * count)
    assert sheet.width - 24 == columns * (one.width - 24) and sheet.height - 24 == rows * (one.height - 24)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (192, 192), (193, 100), (1000, 20)])
def test_pictures_of_any_size_stay_in_their_place(size):
    record = pair(0, input_image=picture(0, size, "PNG"), edited_image=picture(0, size, "PNG"))
    sheet, empty = (np.asarray(draw_sheet([r], [None])) for r in (record, pair(0, input_image=b"", edited_image=b"")))
    differs = np.argwhere((sheet != empty).any(-1))
    assert (differs.min(0) >= 24).all()
    assert (differs.max(0) < [24 + SIDE, 24 + 2 * SIDE + 6]).all()


def test_a_fault_is_shown_in_red_and_the_picture_crossed_out():
    good, bad = draw_sheet([pair(0)], [None]), draw_sheet([pair(0, edited_image=b"")], ["edited picture: empty"])
    assert not shares(good, RED).any()
    pictures = shares(bad, RED)[24 : 24 + SIDE]
    assert pictures[:, 24 + SIDE + 6 :].sum() > SIDE and not pictures[:, : 24 + SIDE].any()
    assert shares(bad, RED)[24 + SIDE :].any()


@pytest.mark.parametrize("text", ["word " * 200, "w" * 500, "", "夜にして", "make it\nnight"])
def test_any_instruction_stays_in_its_cell(text):
    sheet = np.asarray(draw_sheet([pair(0, instruction=text)], [None]))
    assert (sheet[:, -20:] == 255).all()


def test_histograms_draw_thresholds_and_what_is_known_only():
    values = {"direction": [0.1, 0.2, 0.3], "cfg": [7.5]}
    plain, limited = draw_histograms(values, {}), draw_histograms(values, {"direction": 0.2})
    assert not shares(plain, RED).any()
    lines = np.argwhere(shares(limited, RED))
    width, height = plain.size
    assert len(lines) and (lines[:, 0] < height / 2).all() and (lines[:, 1] > 2 * width / 3).all()
    blue = shares(plain, (0x3B, 0x6E, 0xA5))
    assert blue[: height // 2, 2 * width // 3 :].any() and blue[height // 2 :, 2 * width // 3 :].any()
    assert not blue[:, : 2 * width // 3].any()


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [-1.0, 1.0], [float("nan")], []])
def test_any_values_can_be_drawn(values):
    assert isinstance(draw_histograms({"p": values, "cfg": values}, {"image": 0.7}), Image.Image)


# The commands


@pytest.fixture
def shard(tmp_path):
    write_shard([pair(number) for number in range(5)], tmp_path / "set.tar")
    return tmp_path / "set.tar"


@pytest.mark.parametrize(("form", "name"), [("webdataset", "a"), ("folder", "b"), ("parquet", "c.parquet")])
def test_convert_writes_each_form(shard, form, name, tmp_path, capsys):
    out = tmp_path / name
    assert main(["dataset", "convert", str(shard), "-o", str(out), "--format", form, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"records": 5}
    assert list(read_pairs(out)) == list(read_pairs(shard))


def test_convert_refuses_what_is_there(shard, capsys):
    before = shard.read_bytes()
    assert main(["dataset", "convert", str(shard), "-o", str(shard), "--format", "webdataset"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert shard.read_bytes() == before


def test_inspect_ends_with_0_when_all_is_well(shard, tmp_path, capsys):
    arguments = [
        "dataset",
        "inspect",
        str(shard),
        "-o",
        str(tmp_path / "look"),
        "--limit",
        "3",
        "--thresholds",
        "paper",
    ]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["records"], found["faulty"], found["passing"]) == (3, 0, 0)
    assert main(arguments) == 0
    assert "3 records, 2 captions, 2 instructions" in capsys.readouterr().out


def test_inspect_ends_with_2_on_a_fault_and_draws_all_the_same(tmp_path, capsys):
    (tmp_path / "x.tar").write_bytes(tar_bytes(pair(0)) + tar_bytes(pair(1, instruction="")) + END)
    assert main(["dataset", "inspect", str(tmp_path / "x.tar"), "-o", str(tmp_path / "look")]) == 2
    printed = capsys.readouterr()
    assert "0000000-1001: instruction: it is empty" in printed.out
    assert "1 of 2 records are faulty" in printed.err
    assert (tmp_path / "look/histograms.png").is_file()


@pytest.mark.parametrize("text", ["0.2", "a,b,c,d", "0.2,0.2,0.2,7", "nan,0,0,0"])
def test_thresholds_are_four_cosines(shard, text, tmp_path, capsys):
    assert main(["dataset", "inspect", str(shard), "-o", str(tmp_path / "look"), "--thresholds", text]) == 2
    assert "0.2,0.2,0.2,0.7" in capsys.readouterr().err
