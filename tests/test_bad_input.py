"""Bad input through the real command: exit status 2, one line on stderr, the inputs untouched, nothing left behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ip2p_fast.cli import main
from ip2p_fast.images import load_image


@pytest.fixture(scope="module")
def model(tiny_pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tiny_pipeline.save_pretrained(path)
    (path / "defaults.json").write_text('{"steps": 1}')
    return path


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Inputs of every kind that goes wrong, and good.png."""
    folder = tmp_path_factory.mktemp("inputs")
    good = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    good.save(folder / "good.png")
    data = (folder / "good.png").read_bytes()
    (folder / "text.png").write_text("not a picture, whatever its name says")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    Image.new("1", (9000, 9000)).save(folder / "bomb.png")
    Image.new("RGB", (2000, 2)).save(folder / "long.png")
    return folder


@pytest.fixture
def inputs(originals, tmp_path, monkeypatch):
    """A copy of them as the current folder."""
    shutil.copytree(originals, tmp_path / "inputs")
    monkeypatch.chdir(tmp_path / "inputs")
    return tmp_path / "inputs"


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refused(inputs, model, capsys):
    """Runs `ip2p-fast edit`, asserts what every refusal has in common, and returns its line."""

    def run(*arguments, model=model):
        before = contents(inputs)
        given = ["edit", "--model", str(model), "--device", "cpu", *arguments]
        for option, value in (("-p", "make it night"), ("-o", "out.png")):
            given += [] if option in arguments else [option, value]
        assert main(given) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1 and printed.err.startswith("error: ")
        assert contents(inputs) == before
        return printed.err

    return run


@pytest.mark.parametrize(
    "name, reason",
    [
        ("absent.png", "absent.png: no such file"),
        ("text.png", "text.png is not a picture"),
        ("empty.png", "empty.png is empty"),
        ("cut.png", "cut.png is damaged"),
        ("bomb.png", "bomb.png has 9000x9000 = 81,000,000 pixels, over the limit of 64,000,000"),
        ("long.png", "a 2000x2 picture is too long"),
        (".", "is a folder"),
    ],
)
def test_pictures_that_cannot_be_edited(refused, name, reason):
    assert reason in refused(name)
    assert reason in refused("good.png", name, "-o", "..")


def test_the_pixel_limit_is_an_option(refused, model):
    assert "over the limit of 255" in refused("good.png", "--max-pixels", "255")
    assert "over the limit of 1,000" in refused("good.png", "--mask", "bomb.png", "--max-pixels", "1000")
    assert main(["edit", "good.png", "-p", "", "-o", "out.png", "--max-pixels", "256", "--model", str(model)]) == 0


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--text-guidance", "nan"], "text_guidance is nan"),
        (["--text-guidance", "inf"], "text_guidance is inf"),
        (["--image-guidance", "-inf"], "image_guidance is -inf"),
        (["--steps", "0"], "steps is 0"),
        (["--steps", "1001"], "steps is 1001"),
        (["--steps", "many"], "Invalid value for '--steps'"),
        (["--sampler", "magic"], "unknown sampler 'magic'"),
        (["--backend", "magic"], "unknown backend 'magic'"),
        (["--device", "magic"], "unknown device 'magic'"),
        (["--dtype", "int3"], "unknown dtype 'int3'"),
        (["--size", "0"], "size is 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--num-images", "0"], "--num-images is 0"),
        (["--guidance-interval", "0.5"], "--guidance-interval is '0.5': FROM:TO is needed"),
        (["--guidance-interval", "0.8:0.2"], "guidance_interval is (0.8, 0.2)"),
        (["--guidance-refresh", "0"], "guidance_refresh is 0"),
        (["--deep-refresh", "0"], "deep_refresh is 0"),
        (["--max-rows", "0"], "max_rows is 0"),
        (["--max-pixels", "0"], "max_pixels is 0"),
        (["--mask", "text.png"], "text.png is not a picture"),
        (["--magic"], "No such option"),
    ],
)
def test_settings_that_mean_nothing(refused, arguments, reason):
    assert reason in refused("good.png", *arguments)


@pytest.mark.parametrize(
    "out, reason",
    [
        ("absent/out.png", "there is no folder absent"),
        ("out.tga", "it ends in .tga; use one of .png"),
        ("good.png", "good.png is an input and would be overwritten"),
        ("../inputs/good.png", "good.png is an input and would be overwritten"),
        (".", "good.png is an input and would be overwritten"),
        pytest.param(
            "/proc/self/out.png",
            "cannot write /proc/self/out.png",
            marks=pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder not even root writes in"),
        ),
    ],
)
def test_places_that_cannot_be_written(refused, out, reason):
    assert reason in refused("good.png", "-o", out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder(refused, inputs):
    (inputs / "closed").mkdir(mode=0o500)
    assert "cannot write closed/out.png: Permission denied" in refused("good.png", "-o", "closed/out.png")


def test_several_pictures_need_a_folder_and_different_names(refused, inputs):
    assert "2 pictures come out, so -o must be a folder" in refused("good.png", "good.png")
    assert "2 pictures come out, so -o must be a folder" in refused("good.png", "--num-images", "2")
    (inputs / "more").mkdir()
    shutil.copy("good.png", "more/good.png")
    assert "good.png would be written twice" in refused("good.png", "more/good.png", "-o", "..")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def garbled(path):
    path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:])


def misshapen(path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    save_file(tensors | {"conv_in.weight": tensors["conv_in.weight"][:, :6].contiguous()}, path)


def surplus(path):
    import torch
    from safetensors.torch import load_file, save_file

    save_file(load_file(path) | {"more": torch.ones(1)}, path)


def of_four_channels(path):
    config = path.with_name("config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 4}))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (cut, "diffusion_pytorch_model.safetensors is truncated or damaged"),
        (garbled, "diffusion_pytorch_model.safetensors is truncated or damaged"),
        (Path.unlink, "holds no weights"),
        (misshapen, "conv_in.weight"),
        (surplus, "more"),
        (of_four_channels, "this is a text-to-image model"),
    ],
)
def test_weights_that_are_not_whole(refused, model, tmp_path, damage, reason):
    copy = shutil.copytree(model, tmp_path / "copy")
    damage(copy / "unet/diffusion_pytorch_model.safetensors")
    assert reason in refused("good.png", model=copy)


def test_unknown_models(refused, monkeypatch, tmp_path):
    assert "unknown model 'nosuch'" in refused("good.png", model="nosuch")
    assert "is no model in Hugging Face layout" in refused("good.png", model=".")
    assert "good.png is no model" in refused("good.png", model="good.png")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert "someone/absent is neither a folder here nor in the hub's cache" in refused(
        "good.png", model="someone/absent"
    )


def test_an_empty_instruction_returns_the_resized_input(inputs, model):
    for text in ("", "  "):
        assert main(["edit", "good.png", "-p", text, "-o", "out.png", "--size", "16", "--model", str(model)]) == 0
        np.testing.assert_array_equal(load_image("out.png"), load_image("good.png"))


def test_a_long_text_is_cut_with_a_warning_that_shows_what_was_cut(inputs, model, capsys):
    text = "night " * 200 + "and the very end"
    assert main(["edit", "good.png", "-p", text, "-o", "out.png", "--model", str(model)]) == 0
    warning = capsys.readouterr().err.splitlines()[0]
    assert warning.startswith("warning: the text is longer than 77 tokens") and warning.endswith("and the very end'")


def test_one_pixel_is_edited(inputs, model):
    Image.new("RGB", (1, 1)).save("dot.png")
    assert main(["edit", "dot.png", "-p", "make it night", "-o", "out.png", "--size", "16", "--model", str(model)]) == 0
    assert load_image("out.png").size == (16, 16)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["cut.png"], "cut.png is damaged"),
        (["good.png", "--steps", "0"], "steps is 0"),
        (["--magic"], "No such option"),
    ],
)
def test_in_a_process_of_its_own(inputs, model, arguments, reason):
    before = contents(inputs)
    command = [sys.executable, "-m", "ip2p_fast.cli", "edit", *arguments, "-p", "x", "-o", "out.png"]
    done = subprocess.run([*command, "--model", str(model)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert reason in done.stderr and contents(inputs) == before
