"""The three layouts: what the readers make of files as the benchmarks' own scripts have them."""

import io
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from ip2p_fast.errors import BadInput
from ip2p_fast.training.metrics.cases import EditCase, distinct_cases
from ip2p_fast.training.metrics.emu_edit import read_emu_edit, write_emu_edit
from ip2p_fast.training.metrics.magicbrush import read_magicbrush, write_magicbrush
from ip2p_fast.training.metrics.pie_bench import SIDE, decode_mask, encode_mask, read_pie_bench, write_pie_bench


def edit_json(path, change):
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


# Emu Edit


def test_emu_edit_comes_back_as_it_was_written(emu_cases, tmp_path, assert_same):
    write_emu_edit(emu_cases, tmp_path)
    for read, written in zip(read_emu_edit(tmp_path), emu_cases, strict=True):
        assert_same(read, written)


def emu_rows(draw, of="test", count=2, **changes):
    def row(index):
        file = io.BytesIO()
        Image.fromarray(draw(index)).save(file, "PNG")
        texts = {"instruction": f"do {index}", "input_caption": "before", "output_caption": "after"}
        numbered = {"idx": 40 + index, "hash": "ab", "task": "Back ground", "split": of}
        return {"image": {"bytes": file.getvalue(), "path": "x.png"}} | texts | numbered | changes

    return [row(index) for index in range(count)]


def write_rows(rows, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_emu_edit_reads_the_files_of_the_hub_and_only_the_split_asked_for(draw, tmp_path):
    write_rows(emu_rows(draw, "test"), tmp_path / "data" / "test-00000-of-00001-abcdef.parquet")
    write_rows(emu_rows(draw, "validation", 3), tmp_path / "data" / "validation-00000-of-00001-abcdef.parquet")
    test, validation = list(read_emu_edit(tmp_path)), list(read_emu_edit(tmp_path, "validation"))
    assert [case.id for case in test] == ["test-back-ground-40", "test-back-ground-41"]
    assert [case.id for case in validation] == [f"validation-back-ground-{i}" for i in (40, 41, 42)]
    assert (test[1].instruction, test[1].source_caption, test[1].target_caption) == ("do 1", "before", "after")
    assert test[1].group == "Back ground" and test[1].target is None and test[1].mask is None
    np.testing.assert_array_equal(test[1].source, draw(1))
    assert len(list(read_emu_edit(tmp_path, limit=1))) == 1


def test_emu_edit_without_a_split_column_goes_by_the_names_of_files(draw, tmp_path):
    for split in ("test", "validation"):
        rows = emu_rows(draw, split, instruction=f"of {split}")
        for row in rows:
            del row["split"]
        write_rows(rows, tmp_path / f"{split}-0.parquet")
    assert {case.instruction for case in read_emu_edit(tmp_path, "validation")} == {"of validation"}


def test_emu_edit_says_which_columns_there_are(draw, tmp_path):
    rows = emu_rows(draw, "test")
    for row in rows:
        del row["output_caption"], row["idx"]
    write_rows(rows, tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="no column idx, output_caption; there is .*input_caption.*task"):
        read_emu_edit(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": "train"}, "no row of the split 'test'; there is train"),
        ({"instruction": None}, "idx 40: instruction is None"),
        ({"image": {"bytes": None, "path": "elsewhere.png"}}, "idx 40: the picture is not in the file"),
        ({"image": {"bytes": b"no picture", "path": None}}, "not a picture"),
        ({"idx": 7}, "two cases have the id test-back-ground-7"),
    ],
)
def test_emu_edit_refuses_rows_it_cannot_use(changes, said, draw, tmp_path):
    write_rows(emu_rows(draw, **changes), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=said):
        list(read_emu_edit(tmp_path))


def test_emu_edit_refuses_what_is_no_parquet(tmp_path):
    (tmp_path / "readme.md").write_text("nothing here")
    with pytest.raises(BadInput, match=r"no \*\.parquet .* there is readme.md"):
        read_emu_edit(tmp_path)
    (tmp_path / "a.parquet").write_text("not parquet")
    with pytest.raises(BadInput, match="a.parquet cannot be read as parquet"):
        read_emu_edit(tmp_path)
    with pytest.raises(BadInput, match="no such folder"):
        read_emu_edit(tmp_path / "absent")


# MagicBrush


@pytest.fixture
def magicbrush(magicbrush_cases, tmp_path):
    write_magicbrush(magicbrush_cases, tmp_path)
    return tmp_path


def test_magicbrush_comes_back_as_it_was_written(magicbrush, magicbrush_cases, assert_same):
    before = None
    for case, written in zip(read_magicbrush(magicbrush), magicbrush_cases, strict=True):
        if case.group != "turn 1":  # begins from the output of the turn before
            source = {"source": before.target, "source_caption": before.target_caption}
            written = EditCase(**vars(written) | source)
        assert_same(case, written)
        before = written


def test_magicbrush_names_files_as_the_set_does(magicbrush):
    names = {path.name for path in (magicbrush / "images" / "242").iterdir()}
    assert names == {f"242-{name}.png" for name in ("input", "mask1", "output1", "mask2", "output2")}
    turns = json.loads((magicbrush / "edit_turns.json").read_text())
    sessions = json.loads((magicbrush / "edit_sessions.json").read_text())
    assert turns == [turn for session in sessions.values() for turn in session]
    assert sessions["242"][1]["input"] == "242-output1.png"


def test_multi_turn_goes_on_from_the_edit_before_and_scores_the_last_turn(magicbrush):
    read = list(read_magicbrush(magicbrush, multi_turn=True))
    assert [(case.id, case.follows, case.scored, case.group) for case in read] == [
        ("30/30_1", None, True, "1 turn"),
        ("139/139_1", None, False, "3 turns"),
        ("242/242_1", None, False, "2 turns"),
        ("139/139_iter_2", "139/139_1", False, "3 turns"),
        ("242/242_iter_2", "242/242_1", True, "2 turns"),
        ("139/139_iter_3", "139/139_iter_2", True, "3 turns"),
    ]
    limited = list(read_magicbrush(magicbrush, multi_turn=True, limit=2))
    assert [case.id for case in limited if case.scored] == ["30/30_1", "139/139_iter_3"]


def test_magicbrush_takes_local_or_global_captions(magicbrush):
    described = json.loads((magicbrush / "local_descriptions.json").read_text())
    longer = {name: {key: f"all of {text}" for key, text in texts.items()} for name, texts in described.items()}
    (magicbrush / "global_descriptions.json").write_text(json.dumps(longer))
    for of_image in described.values():  # the set's local descriptions have no input
        of_image.pop(next(key for key in of_image if key.endswith("input.png")))
    (magicbrush / "local_descriptions.json").write_text(json.dumps(described))
    local, whole = (next(iter(read_magicbrush(magicbrush, captions=kind))) for kind in ("local", "global"))
    assert local.source_caption == ""
    assert whole.target_caption == f"all of {local.target_caption}"
    assert whole.source_caption.startswith("all of a cat in winter")


def test_a_mask_without_transparency_is_white_where_the_picture_may_change(magicbrush):
    grey = np.zeros((24, 24), np.uint8)
    grey[3:7, 2:9] = 255
    Image.fromarray(grey).save(magicbrush / "images" / "30" / "30-mask1.png")
    np.testing.assert_array_equal(next(iter(read_magicbrush(magicbrush))).mask, grey == 255)


def test_magicbrush_says_what_is_missing(magicbrush):
    with pytest.raises(BadInput, match="no global_descriptions.json; there is edit_sessions.json"):
        read_magicbrush(magicbrush, captions="global")
    with pytest.raises(BadInput, match="local, global"):
        read_magicbrush(magicbrush, captions="both")
    (magicbrush / "images" / "139" / "139-output2.png").unlink()
    with pytest.raises(BadInput, match="named pictures that are not there: 2, the first is .*139-output2.png"):
        read_magicbrush(magicbrush)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (
            "edit_turns",
            lambda turns: turns[0].pop("mask"),
            "turn 1 has no text 'mask'; there is input, instruction, output",
        ),
        ("edit_turns", lambda turns: turns[0].update(output="30.png"), "IMAGE-outputN.png"),
        ("edit_turns", lambda turns: {"30": turns}, "edit_turns.json holds dict, not list"),
        ("local_descriptions", lambda texts: texts["139"].clear(), "no text for 139-output1.png"),
    ],
)
def test_magicbrush_refuses_other_forms(file, change, said, magicbrush):
    def changed(value):
        result = change(value)
        return result if file == "edit_turns" and isinstance(result, dict) else value

    edit_json(magicbrush / f"{file}.json", changed)
    with pytest.raises(BadInput, match=said):
        read_magicbrush(magicbrush)


def test_sessions_have_their_turns_in_order(magicbrush):
    edit_json(magicbrush / "edit_sessions.json", lambda sessions: sessions["139"].reverse())
    with pytest.raises(BadInput, match="session 139, turn 1: the output is '139-output3.png'"):
        read_magicbrush(magicbrush, multi_turn=True)


# PIE-Bench


@pytest.fixture
def pie(pie_cases, tmp_path):
    write_pie_bench(pie_cases, tmp_path)
    return tmp_path


def test_pie_bench_comes_back_as_it_was_written(pie, pie_cases, assert_same):
    for read, written in zip(read_pie_bench(pie), pie_cases, strict=True):
        assert_same(read, written)
    assert [case.group for case in read_pie_bench(pie, limit=2)] == ["0 random", "1 change object"]


def test_a_mask_is_drawn_run_by_run_and_gets_a_border():
    runs = [3 * SIDE + 500, 30, 100 * SIDE + 7, 2, 511 * SIDE + 300, 5000, SIDE * SIDE + 9, 4]
    drawn = [[False] * SIDE for _ in range(SIDE)]
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        for place in range(start, min(start + length, SIDE * SIDE)):  # rows follow each other, the end cuts
            drawn[place // SIDE][place % SIDE] = True
    for row in range(SIDE):
        for column in range(SIDE):
            if row in (0, SIDE - 1) or column in (0, SIDE - 1):
                drawn[row][column] = True
    np.testing.assert_array_equal(decode_mask(runs), np.array(drawn))
    assert decode_mask(runs)[4, 17] and not decode_mask(runs)[4, 18]  # the first run went on in the next row
    assert not decode_mask(runs)[1, 1]


def test_an_empty_mask_is_its_border():
    assert decode_mask([]).sum() == 4 * SIDE - 4


def test_runs_say_what_the_mask_says():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2, 500:] = mask[3, :4] = mask[9, 9] = mask[-1, -1] = True
    assert encode_mask(mask) == [2 * SIDE + 500, 16, 9 * SIDE + 9, 1, SIDE * SIDE - 1, 1]
    assert encode_mask(np.ones((SIDE, SIDE), bool)) == [0, SIDE * SIDE]


def first_entry(mapping):
    return next(iter(mapping.values()))


def test_brackets_are_no_part_of_a_prompt(pie):
    edit_json(pie / "mapping_file.json", lambda m: first_entry(m).update(editing_prompt="a [rusty] bicycle [red]"))
    assert next(iter(read_pie_bench(pie))).target_caption == "a rusty bicycle red"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"editing_type_id": "10"}, "000000000000: editing_type_id is '10': 0 to 9"),
        ({"mask": [5]}, "000000000000: the mask is no array of starts and lengths"),
        ({"mask": [5, -1]}, "starts and lengths"),
        ({"mask": "5 1"}, "starts and lengths"),
        ({"editing_instruction": None}, "no text 'editing_instruction'; there is blended_word, editing_instruction"),
        ({"image_path": "absent.jpg"}, "named pictures that are not there: 1, the first is .*absent.jpg"),
        ({"image_path": "../mapping_file.json"}, "not a picture"),
    ],
)
def test_pie_bench_refuses_entries_it_cannot_use(change, said, pie):
    edit_json(pie / "mapping_file.json", lambda mapping: first_entry(mapping).update(change))
    with pytest.raises(BadInput, match=said):
        list(read_pie_bench(pie))


def test_pie_bench_needs_pictures_of_its_size(pie, draw, pie_cases):
    Image.fromarray(draw(1)).save(pie / "annotation_images" / f"{pie_cases[0].id}.png")
    with pytest.raises(BadInput, match="24x24: its mask needs 512x512"):
        list(read_pie_bench(pie))


def test_a_folder_of_another_layout_is_refused_with_what_it_holds(magicbrush):
    with pytest.raises(BadInput, match=r"no mapping_file.json; there is edit_sessions.json.*images/"):
        read_pie_bench(magicbrush)


@pytest.mark.parametrize("name", ["../up", "/root", "a/../../b", "", "a\\b"])
def test_an_id_stays_within_its_folder(name, emu_cases):
    with pytest.raises(BadInput, match="no path within a folder"):
        list(distinct_cases([EditCase(**vars(emu_cases[0]) | {"id": name})]))
