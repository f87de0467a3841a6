"""examples/cpp: it builds, and makes the ids and edits of Python."""

import importlib.util
import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from ip2p_fast.checkpoints import POCKET

EXAMPLE = "examples/cpp"


@pytest.fixture(scope="module")
def edit(tmp_path_factory, request):
    """Runs the program, built as its README says."""
    if not shutil.which("cmake") or importlib.util.find_spec("openvino") is None:
        pytest.skip("cmake or the package openvino is not installed")
    from openvino.utils import get_cmake_path

    folder = tmp_path_factory.mktemp("cpp")
    source = request.config.rootpath / EXAMPLE
    configure = ["cmake", "-S", source, "-B", folder, f"-DOpenVINO_DIR={get_cmake_path()}", "-DCMAKE_BUILD_TYPE=Debug"]
    configured = subprocess.run(configure, capture_output=True, text=True)
    for library in ("ICU", "PNG", "nlohmann_json"):
        if f"Could NOT find {library}" in configured.stderr or f"Find{library}.cmake" in configured.stderr:
            pytest.skip(f"the headers of {library} are not installed")
    assert configured.returncode == 0, configured.stderr
    subprocess.run(["cmake", "--build", folder, "-j2", "--", "-s"], check=True)

    def run(*arguments):
        return subprocess.run([folder / "edit", *map(str, arguments)], capture_output=True, text=True, timeout=120)

    return run


def test_ids_are_pythons(edit, texts, editor):
    for text in texts[:100]:
        done = edit(POCKET, "--ids", text)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == editor.tokenizer.encode(text).ids.tolist(), text


@pytest.mark.parametrize(
    "picture, sampler, steps, text_guidance, image_guidance, negative",
    [("square", "euler_a", 20, 2.0, 1.5, ""), ("wide", "dpmpp_2m", 8, 3.0, 3.0, "a dog")],
)
def test_an_edit_is_pythons(
    edit, expected, is_the_same, pictures, tmp_path, picture, sampler, steps, text_guidance, image_guidance, negative
):
    out, picture = tmp_path / "out.png", pictures / f"{picture}.png"
    settings = dict(sampler=sampler, text_guidance=text_guidance, image_guidance=image_guidance, negative=negative)
    theirs, noise = expected(picture, "make it night", steps, **settings)
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    done = edit(POCKET, picture, "make it night", out, "--steps", steps, "--noise", noise, *options)
    assert done.returncode == 0, done.stderr
    ours = np.asarray(Image.open(out))
    assert is_the_same(ours, theirs)
    assert not is_the_same(ours, np.asarray(Image.open(picture)))


def test_a_seed_gives_its_picture_again_and_a_long_text_is_told(edit, pictures, tmp_path):
    def edited(seed, instruction="make it night", told=""):
        out = tmp_path / "out.png"
        done = edit(POCKET, pictures / "square.png", instruction, out, "--seed", seed, "--steps", 4)
        assert (done.returncode, done.stderr) == (0, told)
        return out.read_bytes()

    first = edited(7)
    assert first == edited(7)
    assert first != edited(8, "night " * 100, "warning: a text is longer than 77 tokens, cut\n")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bundle": "nowhere"}, "nowhere/bundle.json cannot be read"),
        ({"picture": "nowhere.png"}, "nowhere.png cannot be read as a PNG"),
        ({"picture": __file__}, "cannot be read as a PNG"),
        ({"instruction": " "}, "the instruction is empty"),
        ({"out": "nowhere/out.png"}, "cannot write nowhere/out.png"),
        ({"out": "out.jpg"}, "use .png"),
        ({"options": ["--steps", "7"]}, "steps is '7': the bundle has tables of 4, 8, 20, 50 steps"),
        ({"options": ["--sampler", "heun"]}, "unknown sampler 'heun'"),
        ({"options": ["--text-guidance", "much"]}, "--text-guidance is 'much': a number from -1000 to 1000"),
        ({"options": ["--seed", "-1"]}, "--seed is '-1': a whole number from 0 to 4294967295"),
        ({"options": ["--seed", "7.5"]}, "--seed is '7.5': a whole number"),
        ({"options": ["--noise", __file__]}, "bytes, 86016 are needed"),
        ({"options": ["--sed", "1"]}, "unknown option --sed"),
        ({"options": ["--seed"]}, "--seed needs a value"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(edit, pictures, tmp_path, change, message):
    out = tmp_path / "out.png"
    given = {"bundle": POCKET, "picture": pictures / "square.png", "instruction": "make it night", "out": out}
    given |= {"options": []} | change
    done = edit(given["bundle"], given["picture"], given["instruction"], given["out"], *given["options"])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr
    assert not out.exists()


def test_a_picture_of_other_sides_is_refused(edit, tmp_path):
    Image.new("RGB", (64, 50)).save(tmp_path / "odd.png")
    done = edit(POCKET, tmp_path / "odd.png", "make it night", tmp_path / "out.png")
    assert done.returncode == 2 and "64x50: both sides must be multiples of 16" in done.stderr
