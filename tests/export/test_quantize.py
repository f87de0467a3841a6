"""The guided step in int8: calibrated on real edits, told with its measured quality, run by OpenVINO alone."""

import contextlib
import io
import json
import re
import shutil

import numpy as np
import openvino
import pytest

from ip2p_fast import Editor, ModelError
from ip2p_fast.bundle import read_bundle
from ip2p_fast.checkpoints import POCKET
from ip2p_fast.cli import main
from ip2p_fast.export.quantize import STEPS_KEPT, read_samples


@pytest.fixture(scope="module")
def samples(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    entries = [{"file": f"{i}.png", "instruction": text} for i, text in enumerate(("make it night", "add 3 trees"))]
    for entry, picture in zip(entries, pictures, strict=False):
        picture.save(folder / entry["file"])
    (folder / "samples.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture(scope="module")
def told_and_bundle(tiny_model, samples, tmp_path_factory):
    """What the command printed, and the bundle it made."""
    out, printed = tmp_path_factory.mktemp("int8") / "bundle", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["export", str(tiny_model), "-o", str(out), "--int8", "--calibration", str(samples), "--json"]) == 0
    return json.loads(printed.getvalue()), out


def test_the_command_prints_one_object_with_the_measured_quality(told_and_bundle):
    told, bundle = told_and_bundle
    content = json.loads((bundle / "bundle.json").read_text())
    assert told["int8"] == content["int8"]
    assert {"guided_step_int8.xml", "guided_step_int8.bin"} <= content["files"].keys()
    quality = told["int8"]["quality"]
    assert quality["edits"] == 2 and quality["lowest_psnr_db"] <= quality["psnr_db"]


def test_the_quality_is_that_of_the_edits(told_and_bundle, samples):
    told, bundle = told_and_bundle
    exact, int8 = (
        [
            np.asarray(editor.edit(sample.picture, sample.instruction, seed=i).images[0], float)
            for i, sample in enumerate(read_samples(samples))
        ]
        for editor in (Editor.from_pretrained(bundle, backend="openvino", dtype=d) for d in ("float32", "int8"))
    )
    psnr = [10 * np.log10(255**2 / np.square(a - b).mean()) for a, b in zip(exact, int8, strict=True)]
    assert told["int8"]["quality"]["psnr_db"] == pytest.approx(np.mean(psnr), abs=1.0)
    assert all(value < 60 for value in psnr)  # int8 was run, not float32


def test_weights_are_bytes(told_and_bundle):
    _, bundle = told_and_bundle
    files = read_bundle(bundle).files
    assert files["guided_step_int8.bin"].bytes < 0.35 * files["unet.safetensors"].bytes  # of float32's; biases stay so


def test_every_convolution_and_linear_layer_has_int8_weights(told_and_bundle):
    model = openvino.Core().read_model(told_and_bundle[1] / "guided_step_int8.xml")
    layers = [node for node in model.get_ordered_ops() if node.get_type_name() in ("Convolution", "MatMul")]
    dtypes = [_dtype_of_weights(layer) for layer in layers]
    assert dtypes.count(None) == 2 * 2 * 4  # the two products of the two attentions of four transformers
    assert set(dtypes) == {None, "i8"}


def _dtype_of_weights(layer):
    """Of the constant that a layer's second input is made of by operations of one thing; None where there is none."""
    node = layer.input_value(1).get_node()
    while node.get_type_name() in ("Convert", "Multiply", "Subtract", "Reshape", "Transpose"):
        node = node.input_value(0).get_node()
    return node.get_element_type().get_type_name() if node.get_type_name() == "Constant" else None


def test_weights_alone_lose_less_than_activations_too(tiny_model, samples, told_and_bundle, tmp_path):
    bundle = tmp_path / "bundle"
    asked = ["export", str(tiny_model), "-o", str(bundle), "--int8-weights", "--calibration", str(samples)]
    assert main(asked) == 0
    content = json.loads((bundle / "bundle.json").read_text())
    assert content["int8"]["weights_only"] and not told_and_bundle[0]["int8"]["weights_only"]
    assert content["int8"]["quality"]["psnr_db"] > told_and_bundle[0]["int8"]["quality"]["psnr_db"]
    model = openvino.Core().read_model(bundle / "guided_step_int8.xml")
    kinds = {node.get_type_name() for node in model.get_ordered_ops()}
    assert "FakeQuantize" not in kinds  # activations are as they were
    editor = Editor.from_pretrained(bundle, backend="openvino", dtype="int8")
    assert editor.edit(samples / "0.png", "make it night", steps=2, seed=1).images


def test_two_ways_to_make_one_graph_are_refused(tiny_model, tmp_path, capsys):
    asked = ["export", str(tiny_model), "-o", str(tmp_path / "bundle"), "--int8", "--int8-weights"]
    assert main(asked) == 2
    assert "two ways to make one graph" in capsys.readouterr().err


def test_int8_is_refused_where_the_bundle_or_the_library_has_none(tiny_bundle, told_and_bundle):
    with pytest.raises(ModelError, match="computes in float32 or bfloat16, not 'int8'"):
        Editor.from_pretrained(tiny_bundle, backend="openvino", dtype="int8")
    with pytest.raises(ModelError, match="computes in float32, not 'int8'"):
        Editor.from_pretrained(told_and_bundle[1], backend="onnx", dtype="int8")


def test_auto_never_takes_int8(told_and_bundle):
    assert Editor.from_pretrained(told_and_bundle[1], device="cpu").backend.dtype in ("bfloat16", "float32")


def test_a_bundle_that_lacks_its_int8_file_is_refused(told_and_bundle, tmp_path):
    bundle = shutil.copytree(told_and_bundle[1], tmp_path / "bundle")
    (bundle / "guided_step_int8.bin").unlink()
    with pytest.raises(ModelError, match=r"guided_step_int8.bin: no such file"):
        read_bundle(bundle)


def test_the_pocket_models_own_samples_are_enough_steps():
    assert len(read_samples(POCKET / "samples")) * 20 >= STEPS_KEPT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no .*samples.json: give a folder with one, --calibration FOLDER"),
        ("{", "is no list"),
        ('[{"file": "0.png"}]', "is no list.*'instruction'"),
        ("[]", "names no picture"),
        ('[{"file": "absent.png", "instruction": "dog"}]', "absent.png"),
    ],
)
def test_what_is_wrong_with_the_samples_is_said_before_the_model_is_read(tmp_path, capsys, content, message):
    folder = tmp_path / "samples"
    folder.mkdir()
    if content is not None:
        (folder / "samples.json").write_text(content)
    arguments = ["export", "no-such-model", "-o", str(tmp_path / "bundle"), "--int8", "--calibration", str(folder)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
    assert not (tmp_path / "bundle").exists()


def test_int8_does_not_go_in_place(tiny_model, capsys):
    assert main(["export", str(tiny_model), "--in-place", "--int8"]) == 2
    assert "--int8 makes a file of weights of its own" in capsys.readouterr().err
