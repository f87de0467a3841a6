"""The page in a headless Chromium, before a server of its own: nothing on the console, no request to elsewhere."""

import base64
import io

import httpx2
import numpy as np
import pytest
from PIL import Image

from ip2p_fast import Editor
from ip2p_fast.app.grid import cell_size
from ip2p_fast.app.pictures import samples

pytest.importorskip("gradio")

BOAT = samples()[1]
PHONE = ["size", 390, 844]
OPENED = ["wait", "status", "Ready"]
STEPS = [["open", "more"], ["number", "steps", 2]]
SEED = [["number", "seed", 7], ["tick", "fix-seed"]]


def saved(result):
    return result["name"], np.asarray(Image.open(io.BytesIO(base64.b64decode(result["bytes"]))).convert("RGB"))


def results_of(results, kind):
    return [one for one in results if isinstance(one, kind)]


def test_a_chain_of_edits_each_the_editors_and_undone_and_redone(use_app, tmp_path):
    editor = Editor.from_pretrained("pocket-student", backend="onnx")
    first = editor.edit(BOAT.path, BOAT.instruction, steps=2, seed=7).images[0]
    second = editor.edit(first, "make it night", steps=2, seed=7).images[0]
    results = use_app(
        OPENED,
        *STEPS,
        *SEED,
        ["sample", 1],
        ["value_is", "instruction", BOAT.instruction],
        ["press", "edit"],
        ["wait", "status", "done in"],
        ["save", "download"],
        ["press", "proceed"],
        ["write", "instruction", "make it night"],
        ["press", "edit"],
        ["wait", "status", "make it night: done in"],
        ["save", "download"],
        ["entries"],
        ["screenshot", str(tmp_path / "desktop.png")],
        ["overflow"],
        ["press", "undo"],
        ["wait", "status", f"{BOAT.instruction} (seed 7)"],
        ["save", "download"],
        ["press", "redo"],
        ["wait", "status", "make it night (seed 7)"],
        ["entry", 0],
        ["wait", "status", "Ready"],
        ["enabled", "undo"],
    )
    (name, one), (_, two), (_, undone) = map(saved, results_of(results, dict))
    assert name == "move-the-boat-to-the-right-seed-7.png"
    assert np.abs(one.astype(int) - np.asarray(first)).max() <= 1
    assert np.abs(two.astype(int) - np.asarray(second)).max() <= 2  # of a picture that was within one
    assert np.any(one != two)
    np.testing.assert_array_equal(undone, one)
    assert results_of(results, int) == [3, 0, False]


def test_an_upload_and_a_grid_on_a_phone(use_app, tmp_path):
    photo = tmp_path / "photo.jpg"
    Image.open(BOAT.path).convert("RGB").resize((300, 180)).save(photo)
    results = use_app(
        PHONE,
        OPENED,
        ["upload", str(photo)],
        ["loaded_size", "picture", 300, 180],
        ["write", "instruction", "make it night"],
        ["press", "edit"],
        ["wait", "status", "done in"],
        ["save", "download"],
        ["press", "keep-seed"],
        ["press", "edit"],
        ["entries_are", 3],
        ["save", "download"],
        ["overflow"],
        ["screenshot", str(tmp_path / "phone.png")],
        ["view", "Grid"],
        ["number", "text-count", 2],
        ["number", "image-count", 2],
        ["press", "draw"],
        ["wait", "grid-status", "4 pictures in"],
        ["save", "grid-download"],
        ["overflow"],
        ["screenshot", str(tmp_path / "grid.png")],
        ["click_at", "sheet", 0.9, 0.9],
        ["appear", "instruction"],
        ["value_is", "text-guidance", "4"],
        ["value_is", "image-guidance", "2"],
    )
    (_, edited), (_, again), (name, sheet) = map(saved, results_of(results, dict))
    np.testing.assert_array_equal(edited, again)  # the seed was kept
    assert edited.shape == (180, 300, 3)
    assert np.any(edited != np.asarray(Image.open(photo)))
    width, height = cell_size(Image.fromarray(edited))
    assert name.startswith("grid-make-it-night-seed-") and sheet.shape[0] > 2 * height and sheet.shape[1] > 2 * width
    assert results_of(results, int) == [0, 0]


@pytest.mark.slow  # the painter draws by WebGL, which takes a processor seconds
def test_only_what_is_painted_changes(use_app):
    results = use_app(
        OPENED,
        *STEPS,
        *SEED,
        ["tick", "masking"],
        ["paint", 0.4, 0.3, 0.6, 0.3],
        ["press", "edit"],
        ["wait", "status", "done in"],
        ["save", "download"],
    )
    _, edited = saved(results_of(results, dict)[0])
    given = np.asarray(Image.open(samples()[0].path).convert("RGB"))
    changed = np.any(edited != given, axis=2)
    assert changed[15:20, 26:38].mean() > 0.5
    assert not changed[32:].any() and not changed[:, :12].any() and not changed[:, 52:].any()


@pytest.mark.slow
def test_what_cannot_be_done_is_told_in_one_line_and_the_page_goes_on(use_app, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    use_app(
        OPENED,
        ["upload", str(broken)],
        ["wait", "status", "This file is not a picture"],
        ["write", "instruction", " "],
        ["press", "edit"],
        ["wait", "status", "The instruction is empty: say what to change."],
        ["view", "Grid"],
        ["write", "text-first", "9"],
        ["press", "draw"],
        ["wait", "grid-status", "Text guidance goes from 9 to 4: the first must be the smaller."],
        ["number", "text-first", 1],
        ["number", "text-count", 8],
        ["press", "draw"],
        ["wait", "grid-status", "The instruction is empty"],
        ["view", "Edit"],
        ["write", "instruction", "make it snow"],
        ["view", "Grid"],
        ["press", "draw"],
        ["wait", "grid-status", "The server has no room for so many edits now"],
        ["view", "Edit"],
        ["press", "edit"],
        ["wait", "status", "make it snow: done in"],
    )


def test_tabs_are_apart_and_stopping_or_closing_one_ends_its_edits(use_app, site):
    """16 edits of 100 steps, one at a time, keep another tab's waiting until the first is closed."""
    steps_before = site.metric("ip2p_step_rows_count")
    many = [["open", "more"], ["choose", "sampler", "euler_a"], ["number", "steps", 100]]
    results = use_app(
        OPENED,
        *many,
        ["view", "Grid"],
        ["number", "text-count", 4],
        ["number", "image-count", 4],
        ["press", "draw"],
        ["wait", "grid-status", "of 16 pictures"],
        ["new_tab"],
        OPENED,
        ["entries"],
        ["press", "edit"],
        ["wait", "status", "Waiting for a place"],
        ["press", "stop"],
        ["wait", "status", "Stopped."],
        ["press", "edit"],
        ["wait", "status", "Waiting for a place"],
        ["tab", 0],
        ["close_tab"],
        ["tab", 1],
        ["wait", "status", "done in"],
        ["entries"],
    )
    assert results_of(results, int) == [0, 2]
    assert site.metric("ip2p_step_rows_count") - steps_before < 16 * 100
    assert site.metric("ip2p_edits_in_flight") == site.metric("ip2p_queue_length") == 0


def test_a_program_is_served_beside_the_page(site):
    assert httpx2.get(site.url + "v1/models").json()["data"][0]["id"] == "pocket-student"
    files = {"image": ("boat.png", BOAT.path.read_bytes(), "image/png")}
    reply = httpx2.post(site.url + "v1/images/edits", files=files, data={"prompt": "make it night", "seed": "7"})
    assert reply.status_code == 200 and reply.json()["data"][0]["seed"] == 7
    assert "ip2p-fast" in httpx2.get(site.url).text


def test_the_server_calls_no_one(site):
    httpx2.get(site.url)
    hosts = {line.split()[-1] for line in site.called.read_text().splitlines()}
    assert hosts == {"127.0.0.1"}
