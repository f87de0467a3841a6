"""The pocket world: scenes and edits, their words, their pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ip2p_fast.errors import BadInput
from ip2p_fast.training.pocket.language import caption, instruction, parse_caption, vocabulary
from ip2p_fast.training.pocket.phrases import AT_PLACE, NUMBERS, PHRASES, SCENE_INSTRUCTIONS, TO_PLACE
from ip2p_fast.training.pocket.render import render, subject_boxes
from ip2p_fast.training.pocket.samples import SAMPLES, write_samples
from ip2p_fast.training.pocket.scene import (
    ATTRIBUTES,
    OF_THE_SUBJECT,
    Edit,
    Scene,
    edits,
    random_edit,
    random_scene,
    scene_from_labels,
)
from ip2p_fast.training.pocket.styles import pixel_block

CAT = Scene("meadow", "day", "clear", "cat", "red", 1, "left", "render")
VIEW = Scene("beach", "night", "snow", "nothing", "none", 0, "none", "render")
STYLES = ATTRIBUTES["style"]


def pixels(scene: Scene, seed: int = 3, size: int = 64) -> np.ndarray:
    return np.asarray(render(scene, seed, size)).astype(int)


def scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng) for _ in range(count)]


# Scenes and edits


def test_labels_name_a_scene_exactly():
    for scene in scenes(300):
        assert list(scene.labels()) == list(ATTRIBUTES)
        assert scene_from_labels(scene.labels()) == scene


def test_random_scenes_take_every_value_and_one_in_ten_is_empty():
    drawn = scenes(3000)
    for name, values in ATTRIBUTES.items():
        assert {str(getattr(scene, name)) for scene in drawn} == set(values)
    assert 0.08 < np.mean([scene.empty for scene in drawn]) < 0.12


@pytest.mark.parametrize(
    "change",
    [{"setting": "moon"}, {"count": 4}, {"count": 0}, {"colour": "none"}, {"subject": "nothing"}, {"position": "none"}],
    ids=str,
)
def test_an_impossible_scene_is_refused(change):
    with pytest.raises(BadInput):
        replace(CAT, **change)


def test_an_edit_changes_the_attribute_it_names_and_no_other():
    for scene in scenes(40):
        for edit in edits(scene):
            changed = {name for name in ATTRIBUTES if getattr(edit.scene, name) != getattr(scene, name)}
            assert changed == (set(OF_THE_SUBJECT) if edit.kind in ("add", "remove") else {edit.kind})


def test_edits_are_all_there_and_each_once():
    others = {name: len(values) - 1 for name, values in ATTRIBUTES.items()}
    of_the_scene = sum(others[name] for name in ATTRIBUTES if name not in OF_THE_SUBJECT)
    present = {name: others[name] for name in OF_THE_SUBJECT}  # Without the value that says there is none.
    assert len(edits(CAT)) == len(set(edits(CAT))) == of_the_scene + sum(n - 1 for n in present.values()) + 1
    assert len(edits(VIEW)) == len(set(edits(VIEW))) == of_the_scene + np.prod(list(present.values()))


@pytest.mark.parametrize("scene", [CAT, VIEW], ids=["a cat", "nothing"])
def test_random_edits_are_possible_ones_with_all_kinds_about_as_often(scene):
    rng = np.random.default_rng(0)
    drawn = [random_edit(scene, rng) for _ in range(1800)]
    possible = edits(scene)
    assert set(drawn) <= set(possible)
    kinds = {edit.kind for edit in possible}
    shares = [np.mean([edit.kind == kind for edit in drawn]) * len(kinds) for kind in kinds]
    assert min(shares) > 0.7 and max(shares) < 1.3


# Words


def test_a_caption_in_any_phrasing_reads_back_as_its_scene():
    rng = np.random.default_rng(1)
    for scene in scenes(800):
        assert parse_caption(caption(scene)) == scene
        assert parse_caption(caption(scene, rng)) == scene


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a photo of a dog",
        caption(CAT) + " and more",
        caption(CAT).replace("a red cat", "a red cats"),
        caption(CAT).replace("a red cat", "two red cat"),
        caption(CAT).replace("a red cat", "a pink cat"),
        caption(CAT).replace("a red cat", "one red cat"),
    ],
)
def test_what_is_no_caption_is_refused(text):
    with pytest.raises(BadInput, match="not a caption"):
        parse_caption(text)


def test_no_phrase_says_two_values():
    for table in (*PHRASES.values(), *SCENE_INSTRUCTIONS.values(), AT_PLACE, TO_PLACE):
        said = [phrase for phrases in table.values() for phrase in phrases]
        assert len(said) == len(set(said))


def test_captions_and_instructions_come_in_many_phrasings():
    rng = np.random.default_rng(2)
    assert len({caption(CAT, rng) for _ in range(300)}) > 250
    for edit in edits(CAT):
        assert len({instruction(CAT, edit, rng) for _ in range(100)}) >= 6


def test_an_instruction_names_the_new_value_of_the_subject():
    rng = np.random.default_rng(3)
    for scene in scenes(60):
        for edit in edits(scene):
            after, said = edit.scene, instruction(scene, edit, rng)
            if edit.kind in ("subject", "add"):
                assert after.subject in said
            if edit.kind in ("colour", "add"):
                assert after.colour in said.split()
            if edit.kind in ("position", "add"):
                assert any(phrase in said for phrase in (*AT_PLACE[after.position], *TO_PLACE[after.position]))
            if edit.kind == "count":
                by_one = any(word in said for word in ("second", "third", "one more", "away one", "one of", "less"))
                assert NUMBERS[after.count] in said.split() or by_one


def test_no_instruction_asks_for_two_different_edits():
    """Told of the same scene, two edits never share a sentence: an instruction has one right answer."""
    rng = np.random.default_rng(4)
    for scene in (CAT, replace(CAT, count=2), replace(CAT, count=3), VIEW):
        meant: dict[str, Edit] = {}
        for edit in edits(scene):
            for said in {instruction(scene, edit), *(instruction(scene, edit, rng) for _ in range(40))}:
                assert meant.setdefault(said, edit) == edit, said


def test_the_vocabulary_holds_every_word_that_is_said():
    rng = np.random.default_rng(5)
    known = {word for text in vocabulary() for word in text.replace(",", " ").replace(":", " ").split()}
    for scene in scenes(400):
        said = f"{caption(scene, rng)} {instruction(scene, random_edit(scene, rng), rng)}"
        assert set(said.replace(",", " ").replace(":", " ").split()) <= known


# Pictures


@pytest.mark.parametrize("style", STYLES)
def test_a_picture_is_the_same_every_time(style):
    scene = replace(CAT, style=style, weather="rain", time="sunset")
    assert np.array_equal(pixels(scene), pixels(scene))
    assert not np.array_equal(pixels(scene, seed=3), pixels(scene, seed=4))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 63, 64, 65, 100, 128, 256, 512])
def test_every_size_is_drawn(style, size):
    picture = render(replace(CAT, style=style, count=3, weather="fog"), 0, size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))


def test_a_large_picture_is_the_small_one_with_more_detail():
    small = pixels(CAT, size=64)
    large = np.asarray(render(CAT, 3, 256).reduce(4)).astype(int)
    assert np.abs(small - large).mean() < 3


def test_a_bad_size_or_seed_is_refused():
    with pytest.raises(BadInput, match="size|pixel"):
        render(CAT, 0, 0)
    with pytest.raises(BadInput, match="seed"):
        render(CAT, -1, 64)


@pytest.mark.parametrize("style", STYLES)
def test_every_edit_can_be_seen(style):
    for scene in (replace(CAT, style=style), replace(VIEW, style=style)):
        before = pixels(scene)
        for edit in edits(scene):
            changed = np.abs(pixels(edit.scene) - before).max(axis=-1) > 24
            assert changed.mean() > 0.01, edit


@pytest.mark.parametrize("style", ["render", "pixel art"])
def test_an_edit_of_the_subject_leaves_all_else_untouched(style):
    rng = np.random.default_rng(6)
    tried = 0
    while tried < 60:
        scene = replace(random_scene(rng), style=style)
        edit, seed = random_edit(scene, rng), int(rng.integers(1 << 31))
        if edit.kind not in (*OF_THE_SUBJECT, "add", "remove"):
            continue
        tried += 1
        may_change = np.zeros((64, 64), dtype=bool)
        # Pixel art is drawn in blocks, and each is sharpened against its neighbours.
        margin = 2 * pixel_block(64) if style == "pixel art" else 1
        for left, top, right, bottom in subject_boxes(scene, seed) + subject_boxes(edit.scene, seed):
            rows = slice(max(0, int(top * 64) - margin), int(bottom * 64) + 1 + margin)
            columns = slice(max(0, int(left * 64) - margin), int(right * 64) + 1 + margin)
            may_change[rows, columns] = True
        changed = (pixels(scene, seed) != pixels(edit.scene, seed)).any(axis=-1)
        assert changed.any()
        assert not (changed & ~may_change).any(), edit
        assert not may_change.all()


def test_a_subject_keeps_its_place_when_the_scene_around_it_changes():
    rng = np.random.default_rng(7)
    for edit in edits(CAT):
        if edit.kind in ("setting", "time", "weather", "style", "colour"):
            seed = int(rng.integers(1 << 31))
            assert subject_boxes(edit.scene, seed) == subject_boxes(CAT, seed)


def test_subjects_stay_inside_and_apart():
    for subject in ATTRIBUTES["subject"][:-1]:
        for position in ATTRIBUTES["position"][:-1]:
            for count in (1, 2, 3):
                for seed in range(10):
                    boxes = subject_boxes(replace(CAT, subject=subject, position=position, count=count), seed)
                    assert len(boxes) == count
                    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
                    assert min(lefts) > -0.01 and min(tops) > 0 and max(rights) < 1.01 and max(bottoms) < 1.01
                    centre = (min(lefts) + max(rights)) / 2
                    assert {"left": 0, "middle": 1, "right": 2}[position] == int(centre * 3)


def test_pixel_art_is_made_of_blocks():
    for size in (64, 128, 256):
        picture, block = pixels(replace(CAT, style="pixel art"), size=size), pixel_block(size)
        whole = size // block * block
        blocks = picture[:whole, :whole].reshape(whole // block, block, whole // block, block, 3)
        assert np.array_equal(blocks, np.broadcast_to(blocks[:, :1, :, :1], blocks.shape))


# Samples


def test_samples_are_what_their_file_says(tmp_path: Path):
    paths = write_samples(tmp_path)
    entries = json.loads((tmp_path / "samples.json").read_text())
    assert [path.name for path in paths] == [entry["file"] for entry in entries]
    for path, entry in zip(paths, entries, strict=True):
        scene = Scene(**entry["scene"])
        assert parse_caption(entry["caption"]) == scene
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(render(scene, entry["seed"], 64)))


def test_shipped_samples_are_up_to_date(tmp_path: Path):
    import ip2p_fast.pocket

    shipped = Path(ip2p_fast.pocket.__file__).parent / "samples"
    for path in write_samples(tmp_path):
        assert np.array_equal(np.asarray(Image.open(shipped / path.name)), np.asarray(Image.open(path)))
    assert (shipped / "samples.json").read_text() == (tmp_path / "samples.json").read_text()


def test_samples_suggest_edits_that_exist_and_of_different_kinds():
    assert all(edit in edits(scene) for scene, edit in SAMPLES.values())
    assert len({edit.kind for _, edit in SAMPLES.values()}) == len(SAMPLES)
