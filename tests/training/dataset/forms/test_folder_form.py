"""The original's form: folders as its own code writes and reads them."""

import json

import pytest
from small_pairs import RECORDS, pair, picture

from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.forms.folder_form import write_folder
from ip2p_fast.training.dataset.forms.formats import read_pairs


def test_the_folder_form_is_the_originals(tmp_path):
    write_folder(RECORDS[:3], tmp_path / "set")
    assert json.loads((tmp_path / "set/seeds.json").read_text()) == [["0000000", [1000, 1001]], ["0000001", [1002]]]
    folder = tmp_path / "set/0000000"
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"{seed}_{side}.jpg" for seed in (1000, 1001) for side in (0, 1)),
        "metadata.jsonl",
        "prompt.json",
    ]
    assert json.loads((folder / "prompt.json").read_text()) == {
        "input": "a house, 0",
        "edit": "make it 0",
        "output": "a “house” in the mist, 0",
    }
    assert json.loads((folder / "metadata.jsonl").read_text().splitlines()[0]) == {
        "seed": 1000,
        "p2p_threshold": 0.1,
        "cfg_scale": 7.5,
        "clip_sim_0": 0.25,
        "clip_sim_1": 0.24,
        "clip_sim_dir": -0.125,
        "clip_sim_image": 0.875,
    }
    assert (folder / "1000_1.jpg").read_bytes() == RECORDS[0].edited_image


def original(folder):
    """Two captions' folders as the original's generation leaves them: `caption`, and no seeds.json yet."""
    for number, seeds in ((0, (7, 5)), (12, (9,))):
        place = folder / f"{number:07d}"
        place.mkdir(parents=True)
        prompt = {"caption": "a cat", "edit": "make it a dog", "output": "a dog", "url": ""}
        (place / "prompt.json").write_text(json.dumps(prompt))
        for seed in seeds:
            for side in (0, 1):
                (place / f"{seed}_{side}.jpg").write_bytes(picture(seed + side))
    (folder / "0000000/metadata.jsonl").write_text('{"seed": 5, "p2p_threshold": 0.5}\n')
    return folder


def test_without_seeds_json_all_pairs_are_read(tmp_path):
    found = list(read_pairs(original(tmp_path)))
    assert [record.key for record in found] == ["0000000-5", "0000000-7", "0000012-9"]
    assert [(record.seed, record.p) for record in found] == [(5, 0.5), (7, None), (9, None)]
    texts = {(record.caption, record.instruction, record.edited_caption) for record in found}
    assert texts == {("a cat", "make it a dog", "a dog")}


def test_seeds_json_chooses_the_pairs_and_their_order(tmp_path):
    (original(tmp_path) / "seeds.json").write_text('[["0000012", [9]], ["0000000", [7]]]')
    assert [record.key for record in read_pairs(tmp_path)] == ["0000012-9", "0000000-7"]


@pytest.mark.parametrize(
    ("file", "contents", "message"),
    [
        ("seeds.json", '[["0000000", [6]]]', "6_0.jpg cannot be read"),
        ("seeds.json", '[["0000003", [6]]]', "names 0000003"),
        ("seeds.json", '[["../other", [6]]]', "no folder there"),
        ("seeds.json", "[1]", "not of the form"),
        ("seeds.json", "{", "seeds.json is no JSON"),
        ("0000000/prompt.json", "[]", "prompt.json holds list"),
        ("0000000/metadata.jsonl", "{}\nhm", "metadata.jsonl, line 2, is no JSON"),
        ("0000000/metadata.jsonl", '{"seed": 5, "cfg_scale": "x"}', "0000000, 5: cfg is 'x'"),
    ],
)
def test_a_damaged_folder_is_named(file, contents, message, tmp_path):
    (tmp_path / "other").mkdir()
    (original(tmp_path / "set") / file).write_text(contents)
    with pytest.raises(BadInput, match=message):
        list(read_pairs(tmp_path / "set"))


def test_the_same_seed_twice_goes_to_a_folder_of_its_own(tmp_path):
    twice = [pair(0, key="a"), pair(1, key="b"), pair(0, key="c")]
    write_folder(twice, tmp_path / "set")
    assert json.loads((tmp_path / "set/seeds.json").read_text()) == [["0000000", [1000, 1001]], ["0000001", [1000]]]
    assert list(read_pairs(tmp_path / "set")) == twice
