"""examples/node and what it shares with examples/browser: the edits, ids and sizes of Python, and clear refusals."""

import json
import random

import numpy as np
import pytest
from PIL import Image

from ip2p_fast.checkpoints import POCKET
from ip2p_fast.errors import BadInput
from ip2p_fast.images import target_size

READ_IDS = """
import { readFileSync } from "node:fs";
import { tokenReader } from "./shared/tokens.mjs";
const [tokenizer, config, texts] = [...process.argv.slice(1), 0].map((file) => JSON.parse(readFileSync(file)));
const read = texts.map(tokenReader(tokenizer, config));
console.log(JSON.stringify(read.map(({ ids, cut }) => [[...ids].map(Number), cut])));
"""
READ_SIZES = """
import { readFileSync } from "node:fs";
import { targetSize } from "./shared/settings.mjs";
const size = (given) => { try { return targetSize(...given); } catch { return null; } };
console.log(JSON.stringify(JSON.parse(readFileSync(0)).map(size)));
"""
DRAW = """
import { unitNormal } from "./shared/noise.mjs";
console.log(JSON.stringify(process.argv.slice(1).map((seed) => [...unitNormal(Number(seed), 20001)])));
"""


@pytest.fixture(scope="session")
def edit(node):
    return lambda *arguments: node("node/edit.mjs", *arguments)


def evaluated(node, script, *arguments, given=None):
    done = node("--input-type=module", "-e", script, *arguments, input=json.dumps(given))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ids_are_pythons(node, texts, editor):
    files = [POCKET / "tokenizer" / name for name in ("tokenizer.json", "tokenizer_config.json")]
    read = evaluated(node, READ_IDS, *files, given=texts)
    for text, (ids, cut) in zip(texts, read, strict=True):
        encoded = editor.tokenizer.encode(text)
        assert ids == encoded.ids.tolist(), text
        assert cut == bool(encoded.overflow), text


def test_sizes_are_pythons(node):
    chance = random.Random(2)
    cases = [(1280, 853, 64, 64), (64, 48, 64, 16), (5000, 20, 512, 64)]
    cases += [(chance.randint(1, 3000), chance.randint(1, 3000), chance.choice((64, 500, 512)), 16) for _ in range(300)]
    sizes = evaluated(node, READ_SIZES, given=cases)
    assert None in sizes
    for case, size in zip(cases, sizes, strict=True):
        try:
            assert tuple(size or ()) == target_size(*case), case
        except BadInput:
            assert size is None, case


def test_noise_of_a_seed_is_unit_normal_and_its_own(node):
    first, again, second = np.array(evaluated(node, DRAW, 0, 0, 1))
    np.testing.assert_array_equal(first, again)
    for noise in (first, second):
        # each bound is five standard errors of 20,001 normal numbers
        assert abs(noise.mean()) < 0.036 and abs(noise.var() - 1) < 0.05 and abs((noise**4).mean() - 3) < 0.35
        assert abs(np.mean(noise[1:] * noise[:-1])) < 0.036
    assert abs(np.mean(first * second)) < 0.036


@pytest.mark.parametrize(
    "picture, sampler, steps, text_guidance, image_guidance, negative",
    [("square", "euler_a", 20, 2.0, 1.5, ""), ("wide", "dpmpp_2m", 8, 3.0, 3.0, "a dog"), ("wide", "lcm", 4, 1, 1, "")],
)
def test_an_edit_is_pythons(
    edit, expected, is_the_same, pictures, tmp_path, picture, sampler, steps, text_guidance, image_guidance, negative
):
    out, picture = tmp_path / "out.png", pictures / f"{picture}.png"
    settings = dict(sampler=sampler, text_guidance=text_guidance, image_guidance=image_guidance, negative=negative)
    theirs, noise = expected(picture, "make it night", steps, **settings)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    done = edit(POCKET, picture, "make it night", out, f"--steps={steps}", f"--noise={noise}", *options)
    assert done.returncode == 0, done.stderr
    ours = np.asarray(Image.open(out))
    assert is_the_same(ours, theirs)
    assert not is_the_same(ours, np.asarray(Image.open(picture)))


def test_the_models_settings_are_the_defaults_and_a_seed_gives_its_picture_again(edit, pictures, tmp_path):
    def edited(*options):
        done = edit(POCKET, pictures / "square.png", "make it night", tmp_path / "out.png", *options)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "out.png").read_bytes()

    first = edited("--seed=7")
    assert first == edited("--seed=7", "--steps=20", "--text-guidance=2", "--image-guidance=1.5", "--sampler=euler_a")
    assert first != edited("--seed=8")


def test_a_photo_is_turned_and_resized_as_in_python(edit, tmp_path):
    photo = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.open(POCKET / "samples/beach_boat.png").convert("RGB").resize((300, 180)).save(photo, exif=exif)
    out = tmp_path / "out.png"
    done = edit(POCKET, photo, "make it night", out, "--steps=4", "--seed=1")
    assert done.returncode == 0, done.stderr
    assert Image.open(out).size == target_size(180, 300, 64, 16)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bundle": "nowhere"}, "nowhere/bundle.json cannot be read"),
        ({"picture": "nowhere.png"}, "nowhere.png cannot be read as a picture"),
        ({"picture": __file__}, "cannot be read as a picture"),
        ({"instruction": " "}, "the instruction is empty"),
        ({"out": "nowhere/out.png"}, "cannot write nowhere/out.png"),
        ({"out": "out.gif"}, "its ending must be one of .png"),
        ({"options": ["--steps=7"]}, "steps is '7': the bundle has tables of 4, 8, 20, 50 steps"),
        ({"options": ["--sampler=heun"]}, "unknown sampler 'heun': choose one of euler_a"),
        ({"options": ["--text-guidance=much"]}, "text guidance is 'much': a number from -1000"),
        ({"options": ["--image-guidance="]}, "image guidance is ''"),
        ({"options": ["--seed=-1"]}, "seed is '-1': a whole number from 0"),
        ({"options": ["--size=8"]}, "size is '8': a whole number from 16"),
        ({"options": ["--noise=nowhere.f32"]}, "the noise nowhere.f32 cannot be read"),
        ({"options": [f"--noise={__file__}"]}, "float32 [21, 4, 16, 16] is needed, which is 86016 bytes"),
        ({"options": ["--sed=1"]}, "Unknown option '--sed'"),
        ({"options": ["another"]}, "5 arguments are given"),
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


def test_a_bundle_that_was_cut_is_told(edit, pictures, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name in ("tables.json", "edit.onnx", "tokenizer", "text_encoder", "vae", "bundle.json"):
        (bundle / name).symlink_to(POCKET / name)
    done = edit(bundle, pictures / "square.png", "make it night", tmp_path / "out.png")
    weights = bundle / "unet/diffusion_pytorch_model.safetensors"
    assert done.returncode == 2 and f"{weights} has no bytes" in done.stderr
