"""Peers compute what diffusers computes, and stable-diffusion.cpp is asked for the same edit."""

import stat

import numpy as np
import pytest
import torch

from ip2p_fast.benchmarks.inputs import INSTRUCTION
from ip2p_fast.benchmarks.peers import onnx_unet, openvino_unet, stable_diffusion_cpp
from ip2p_fast.benchmarks.peers.plain_unet import load_unet
from ip2p_fast.benchmarks.random_model import TINY, save_random_model
from ip2p_fast.benchmarks.timing import Told, interleave
from ip2p_fast.benchmarks.whole_edits import Settings, open_diffusers
from ip2p_fast.errors import BadInput

SETTINGS = Settings(size=64, steps=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_random_model(TINY, tmp_path_factory.mktemp("model"), torch.float32))


def onnx(model, folder):
    pytest.importorskip("onnxruntime")
    onnx_unet.write(model, folder)
    return onnx_unet.OnnxUNet(folder, ["CPUExecutionProvider"])


def openvino(model, folder):
    pytest.importorskip("openvino")
    openvino_unet.write(model, folder)
    return openvino_unet.OpenVinoUNet(openvino_unet.read(folder), "float32")


@pytest.mark.parametrize("convert", [onnx, openvino])
def test_a_converted_unet_edits_as_diffusers_does_at_any_size_and_batch(convert, model, tmp_path):
    from ip2p_fast.benchmarks.peers.plain_unet import replace_unet

    _, plain = open_diffusers(model, "cpu", "float32")
    pipe, edit = open_diffusers(model, "cpu", "float32")
    replace_unet(pipe, convert(model, tmp_path))
    assert sum(weight.numel() for weight in pipe.unet.parameters()) == 0
    for settings, count in ((SETTINGS, 1), (Settings(size=128, steps=2), 1), (SETTINGS, 2)):
        ours, theirs = (np.asarray(run(settings, count).images[0], int) for run in (edit, plain))
        assert np.abs(ours - theirs).max() <= 1


def test_a_unet_is_loaded_whole(model):
    assert load_unet(model).config.in_channels == 8


# Stands in for the real program: it repeats what it was asked for and tells a time, and edits nothing.
STAND_IN = """#!/bin/sh
case "$1" in --help) echo "{help}"; exit 0;; esac
echo "$@" > "{log}"
[ -f "$6" ] || exit 1
echo "[INFO ] stable-diffusion.cpp:1 - generate_image completed in 12.50s"
exit {status}
"""


@pytest.fixture
def program(tmp_path):
    def make(help="--img-cfg-scale", status=0):
        path = tmp_path / "sd-cli"
        path.write_text(STAND_IN.format(help=help, log=tmp_path / "asked", status=status))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def test_stable_diffusion_cpp_is_asked_for_the_same_edit_and_its_own_time_counts(program, tmp_path):
    path = program()
    stable_diffusion_cpp.require(path)
    edit = stable_diffusion_cpp.open_program(path, "folder")
    assert edit(Settings(size=256, steps=7, text_guidance=6.5, image_guidance=1.25), 4) == Told(12.5)
    asked = (tmp_path / "asked").read_text()
    for part in (
        "--mode img_gen",
        "--model folder",
        "--ref-image /",
        f"--prompt {INSTRUCTION}",
        "--cfg-scale 6.5",
        "--img-cfg-scale 1.25",
        "--sampling-method euler_a",
        "--steps 7",
        "--width 256 --height 256",
        "--batch-count 4",
    ):
        assert part in asked
    assert interleave({"cpp": lambda: edit(SETTINGS, 1)}, rounds=1)["cpp"].seconds == (12.5,)


def test_a_program_that_cannot_edit_by_instruction_is_refused(program, tmp_path):
    with pytest.raises(BadInput, match="no --img-cfg-scale"):
        stable_diffusion_cpp.require(program(help="--cfg-scale"))
    with pytest.raises(BadInput, match="cannot be run"):
        stable_diffusion_cpp.require(tmp_path / "absent")
    with pytest.raises(BadInput, match="failed"):
        stable_diffusion_cpp.open_program(program(status=3), "folder")(SETTINGS, 1)
