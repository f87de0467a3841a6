"""examples/browser in a headless Chromium: the edits of Python, shown step by step, and clear refusals."""

import base64
import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import user
from PIL import Image

from ip2p_fast import Editor
from ip2p_fast.checkpoints import POCKET
from ip2p_fast.images import target_size

SAMPLE = json.loads((POCKET / "samples/samples.json").read_text())[0]
DRIVER = Path(__file__).with_name("use_page.mjs")
READY = ["wait", "Ready."]


@pytest.fixture(scope="module")
def address(node):
    """Of the page, as its own server serves it."""
    with served() as address:
        yield address


@contextlib.contextmanager
def served(*bundle):
    command = ["node", "examples/browser/serve.mjs", "--port", "0", *map(str, bundle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=DRIVER.parents[2]) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@pytest.fixture
def use_page(node, tmp_path):
    use = user(node, DRIVER, tmp_path / "profile")

    def use_with(url, *actions, noise=None):
        return use(url, *actions, **({"noise": str(noise)} if noise else {}))

    return use_with


def pixels(result):
    return np.array(result["pixels"], np.uint8).reshape(result["height"], result["width"], 4)[:, :, :3]


def test_a_samples_edit_is_pythons_and_is_shown_step_by_step(use_page, address, expected, is_the_same):
    picture = POCKET / "samples" / SAMPLE["file"]
    theirs, noise = expected(picture, SAMPLE["instruction"], 8, text_guidance=3.0, image_guidance=1.4)
    seen = use_page(
        f"{address}&noise=/noise.f32",
        READY,
        ["sample", SAMPLE["caption"]],
        ["choose", "steps", 8],
        ["slide", "text_guidance", 3],
        ["slide", "image_guidance", 1.4],
        ["press", "edit"],
        ["wait", "Done"],
        ["picture", "before"],
        ["picture", "after"],
        ["save"],
        noise=noise,
    )
    before, after, saved = seen["results"][-3:]
    assert is_the_same(pixels(after), theirs)
    assert not is_the_same(pixels(after), pixels(before))
    np.testing.assert_array_equal(pixels(before), np.asarray(Image.open(picture).convert("RGB")))
    file = Image.open(io.BytesIO(base64.b64decode(saved["bytes"])))
    assert saved["name"] == "edited.png"
    np.testing.assert_array_equal(np.asarray(file.convert("RGB")), pixels(after))
    assert [text for text in seen["told"] if "of 8" in text] == [f"Step {done} of 8" for done in range(9)]
    assert any(re.fullmatch(r"Loading the model: \d+ of \d+ MB", text) for text in seen["told"])
    assert seen["errors"] == []


def test_a_file_from_disk_is_edited_on_a_phone(use_page, address, tmp_path):
    photo = tmp_path / "photo.jpg"
    Image.open(POCKET / "samples/beach_boat.png").convert("RGB").resize((300, 180)).save(photo)
    seen = use_page(
        address,
        ["size", 390, 844],
        READY,
        ["file", str(photo)],
        ["write", "move the boat to the right"],
        ["choose", "steps", 4],
        ["choose", "sampler", "lcm"],
        ["press", "edit"],
        ["wait", "Done"],
        ["overflow"],
        ["picture", "before"],
        ["picture", "after"],
    )
    overflow, before, after = seen["results"][-3:]
    assert overflow == 0
    assert (after["width"], after["height"]) == target_size(300, 180, 64, 16)
    assert pixels(after).std() > 10 and np.any(pixels(after) != pixels(before))
    assert seen["errors"] == []


def test_a_distilled_model_is_told_the_scales(use_page, tiny_student_bundle, is_the_same, tmp_path):
    picture, noise = tmp_path / "picture.png", np.random.default_rng(3).standard_normal((5, 4, 8, 8), dtype=np.float32)
    Image.open(POCKET / "samples/beach_boat.png").convert("RGB").resize((16, 16)).save(picture)
    noise.tofile(tmp_path / "noise.f32")
    editor = Editor.from_pretrained(tiny_student_bundle, backend="onnx")
    edited = [
        np.asarray(editor.edit(picture, "make it night", steps=4, noise=noise, text_guidance=scale).images[0])
        for scale in (3.0, 4.0)
    ]
    with served(tiny_student_bundle) as address:
        seen = use_page(
            f"{address}&noise=/noise.f32",
            READY,
            ["file", str(picture)],
            ["write", "make it night"],
            ["choose", "steps", 4],
            ["slide", "text_guidance", 3],
            ["press", "edit"],
            ["wait", "Done"],
            ["picture", "after"],
            noise=tmp_path / "noise.f32",
        )
    ours = pixels(seen["results"][-1])
    assert is_the_same(ours, edited[0]) and not is_the_same(ours, edited[1])


def test_an_edit_can_be_stopped_and_another_made(use_page, address):
    seen = use_page(
        address,
        READY,
        ["choose", "steps", 50],
        ["press_once_told", "edit", "Step 2 of 50"],
        ["press", "edit"],
        ["wait", "Stopped."],
        ["choose", "steps", 4],
        ["press", "edit"],
        ["wait", "Done"],
    )
    steps = [text for text in seen["told"] if "of 50" in text]
    assert steps == ["Step 0 of 50", "Step 1 of 50", "Step 2 of 50"] and seen["errors"] == []


def test_what_cannot_be_done_is_told(use_page, address, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    seen = use_page(
        f"{address}&noise=/noise.f32",
        READY,
        ["write", " "],
        ["press", "edit"],
        ["wait", "The instruction is empty"],
        ["write", "make it night"],
        ["press", "edit"],
        ["wait", "float32 [21, 4, 16, 16] is needed"],
        ["file", str(broken)],
        ["wait", "this file is not a picture"],
        noise=broken,
    )
    assert seen["errors"] == []


def test_a_bundle_that_is_not_there_is_told(use_page, address):
    seen = use_page(address.replace("/bundle/", "/nowhere/"), ["wait", "/nowhere/bundle.json cannot be read: 404"])
    assert all("404" in error for error in seen["errors"])


def test_any_static_server_does_with_one_thread(use_page, tmp_path):
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with subprocess.Popen(command, cwd=DRIVER.parents[2], **pipes) as server:
        try:
            port = re.search(r"port (\d+)", server.stdout.readline())[1]
            url = f"http://127.0.0.1:{port}/examples/browser/"
            seen = use_page(url, READY, ["choose", "steps", 4], ["press", "edit"], ["wait", "Done"], ["device"])
        finally:
            server.terminate()
    assert seen["results"][-1] == "WebAssembly, 1 thread" and seen["errors"] == []


@pytest.mark.parametrize("path", ["/", "/bundle/", "/bundle/../setup.py", "/bundle/..%2fbundle.py", "/examples/%00"])
def test_the_server_gives_nothing_outside_its_two_folders(address, path):
    import http.client

    connection = http.client.HTTPConnection(address.split("/")[2], timeout=10)
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    connection.close()
