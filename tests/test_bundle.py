"""bundle.json: what is read of it, and everything that makes a bundle be refused before it is run."""

import json
import shutil

import numpy as np
import pytest

from ip2p_fast import Editor
from ip2p_fast.bundle import GRAPHS, SCHEMA, is_bundle, parse, read_bundle, schedule_to_json
from ip2p_fast.errors import ModelError
from ip2p_fast.samplers import NoiseSchedule


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def rewrite(bundle, change):
    content = json.loads((bundle / "bundle.json").read_text())
    change(content)
    (bundle / "bundle.json").write_text(json.dumps(content))


def test_a_bundle_says_what_the_model_it_was_made_of_is(tiny_bundle, tiny_model):
    info = Editor.from_pretrained(tiny_model, device="cpu").backend.info
    bundle = read_bundle(tiny_bundle)
    assert (bundle.model, bundle.dtype) == ("tiny", "float32")
    for name in ("latent_channels", "vae_scale", "size_multiple"):
        assert getattr(bundle, name) == getattr(info, name)
    assert dict(bundle.defaults) == dict(info.defaults)
    ours, theirs = bundle.schedule, info.schedule
    np.testing.assert_array_equal(ours.alphas_cumprod, theirs.alphas_cumprod)
    assert {**vars(ours), "alphas_cumprod": 0} == {**vars(theirs), "alphas_cumprod": 0}
    assert bundle.graphs.keys() == set(GRAPHS)
    assert bundle.graphs["guided_step"].inputs["x"].shape == ("B", 4, "h", "w")


def test_a_noise_schedule_comes_back_to_the_last_bit():
    odd = NoiseSchedule(np.array([0.9, 0.1 + 0.2]), "v_prediction", "trailing", 1, False)
    again = NoiseSchedule(**json.loads(json.dumps(schedule_to_json(odd))))
    assert again.alphas_cumprod == list(odd.alphas_cumprod) and again.spacing == "trailing"


def test_a_folder_is_a_bundle_by_its_bundle_json(tiny_bundle, tiny_model):
    assert is_bundle(tiny_bundle) and is_bundle(str(tiny_bundle))
    assert not is_bundle(tiny_model) and not is_bundle("pocket") and not is_bundle(None)


@pytest.mark.parametrize("name", ["guided_step.onnx", "unet.safetensors", "vae_decoder.onnx"])
def test_a_truncated_file_is_named_with_its_sizes(bundle, name):
    whole = (bundle / name).stat().st_size
    with (bundle / name).open("r+b") as file:
        file.truncate(whole - 1)
    with pytest.raises(ModelError, match=rf"{name} has {whole - 1} bytes, must have {whole}"):
        read_bundle(bundle)


def test_one_changed_bit_is_found(bundle):
    path = bundle / "unet.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="unet.safetensors is not the file that was exported"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["text_encoder.onnx", "tokenizer/tokenizer.json"])
def test_an_absent_file_is_named(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(ModelError, match=f"{name}: no such file; the bundle is incomplete"):
        read_bundle(bundle)


def test_a_bundle_of_a_newer_schema_is_refused_with_the_way_out(bundle):
    rewrite(bundle, lambda content: content.update(schema=SCHEMA + 1))
    with pytest.raises(ModelError, match=f"schema {SCHEMA + 1}, and this ip2p-fast reads up to {SCHEMA}: update it"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(schema="1"), "schema is '1'"),
        (lambda content: content.update(schema=True), "schema is True"),
        (lambda content: content.update(dtype="int3"), "computes in 'int3', which is none of float32, float16"),
        (lambda content: content.pop("vae_scale"), "it lacks 'vae_scale'"),
        (lambda content: content["graphs"].pop("text_encoder"), "it lacks 'text_encoder'"),
        (lambda content: content["files"].pop("vae_decoder.onnx"), "it lists no hash of vae_decoder.onnx"),
        (lambda content: content["files"].pop("unet.safetensors"), "it lists no hash of unet.safetensors"),
        (lambda content: content["files"].pop("tokenizer/tokenizer.json"), "lists no hash of tokenizer/tokenizer.json"),
        (lambda content: content["files"].update({"vae_decoder.onnx": 7}), "is damaged"),
        (lambda content: content["files"]["vae_decoder.onnx"].pop("sha256"), "sha256"),
        (lambda content: content["files"].update({"../../x": {}}), "points outside its folder, to '../../x'"),
        (lambda content: content["files"].update({"/x": {}}), "points outside its folder, to '/x'"),
        (lambda content: content["schedule"].update(alphas_cumprod="many"), "is damaged"),
        (lambda content: content["schedule"].update(surprise=1), "surprise"),
        (lambda content: content.update(files=[]), "is damaged"),
    ],
)
def test_a_damaged_bundle_json_is_one_clear_line(bundle, change, message):
    rewrite(bundle, change)
    with pytest.raises(ModelError) as error:
        read_bundle(bundle)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_json_or_not_there_is_said(bundle):
    (bundle / "bundle.json").write_text("{")
    with pytest.raises(ModelError, match="bundle.json is damaged"):
        read_bundle(bundle)
    (bundle / "bundle.json").unlink()
    with pytest.raises(ModelError, match="bundle.json: no such file"):
        read_bundle(bundle)


def test_parsing_opens_no_other_file(tiny_bundle, tmp_path):
    content = json.loads((tiny_bundle / "bundle.json").read_text())
    assert parse(tmp_path, content).folder == tmp_path
