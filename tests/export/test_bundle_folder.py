"""A bundle appears whole or not at all; what its bundle.json says of it; and how near it is to the model."""

import json
import shutil

import numpy as np
import pytest
import tiny
from PIL import Image

from ip2p_fast import BadInput, Editor, checkpoints
from ip2p_fast.bundle import is_bundle, read_bundle
from ip2p_fast.checkpoints import POCKET
from ip2p_fast.cli import main
from ip2p_fast.export import bundle_folder
from ip2p_fast.export.bundle_folder import export_bundle
from ip2p_fast.tokenizer import Tokenizer
from ip2p_fast.whole import sha256_of


@pytest.fixture
def traced_before(tiny_bundle, monkeypatch):
    """Takes ONNX files from the bundle that is there, in place of tracing the same model again."""

    def copied(graph, path, weights):
        shutil.copy(tiny_bundle / path.name, path)
        return read_bundle(tiny_bundle).graphs[graph.name].weights

    monkeypatch.setattr(bundle_folder, "write_onnx", copied)


def test_bundle_json_lists_every_file_with_its_size_and_hash(tiny_bundle):
    files = json.loads((tiny_bundle / "bundle.json").read_text())["files"]
    found = {path.relative_to(tiny_bundle).as_posix() for path in tiny_bundle.rglob("*") if path.is_file()}
    assert files.keys() == found - {"bundle.json"}
    for name, facts in files.items():
        path = tiny_bundle / name
        assert facts == {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def test_parity_is_measured_and_within_what_the_backend_promises(tiny_bundle):
    parity = json.loads((tiny_bundle / "bundle.json").read_text())["parity"]
    assert parity["edit_steps"] == 4
    assert 0.0 < parity["guided_noise_relative_error"] <= 1e-4
    assert parity["edit_largest_difference"] <= 1


def test_the_hash_of_the_weights_is_the_weights_own(tiny_bundle, tiny_model, tmp_path):
    told = json.loads((tiny_bundle / "bundle.json").read_text())["model"]["sha256"]
    assert bundle_folder._sha256_of_weights(checkpoints.load(tiny_model)) == told
    other = tiny.pipeline(tmp_path / "source")
    other.unet.conv_out.bias.data[0] += 1e-3
    other.save_pretrained(tmp_path / "other")
    assert bundle_folder._sha256_of_weights(checkpoints.load(tmp_path / "other")) != told


@pytest.mark.parametrize("model", ["pocket", "tiny", "with added tokens"])
def test_the_tokenizer_is_the_models(model, tiny_model, tmp_path):
    if model == "with added tokens":
        theirs = tiny.tokenizer(tmp_path / "source")
        theirs.add_tokens(["<cat>", "<cat>_1"])
        original = Tokenizer.from_transformers(theirs)
    else:
        original = Tokenizer.from_folder((POCKET if model == "pocket" else tiny_model) / "tokenizer")
    bundle_folder._write_tokenizer(original, tmp_path / "tokenizer")
    again = Tokenizer.from_folder(tmp_path / "tokenizer")
    assert (again.size, again.length, again.vectors) == (original.size, original.length, original.vectors)
    for text in ("", "Make it  NIGHT!", "a <cat> in winter, 3 trees", "été ☃", "night " * 100):
        assert again.encode(text).ids.tolist() == original.encode(text).ids.tolist()
        assert again.encode(text).overflow == original.encode(text).overflow


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left"), RuntimeError("a bug")])
@pytest.mark.parametrize("stage", ["_write_tokenizer", "compare"])
def test_an_export_that_ends_early_leaves_nothing(tiny_model, tmp_path, monkeypatch, traced_before, error, stage):
    seen = []

    def fails(*_):
        seen.extend(path for path in tmp_path.iterdir())
        raise error

    monkeypatch.setattr(bundle_folder, stage, fails)
    with pytest.raises((KeyboardInterrupt, BadInput, RuntimeError)):
        export_bundle(tiny_model, tmp_path / "bundle")
    assert len(seen) == 1 and not is_bundle(seen[0])  # nor could what was there be loaded, had the machine gone down
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_one_json_object_and_the_bundle_edits(tiny_model, pictures, tmp_path, capsys, traced_before):
    out = tmp_path / "bundle"
    assert main(["export", str(tiny_model), "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["out"] == str(out) and told["dtype"] == "float32"
    assert told["bytes"] == sum(facts["bytes"] for facts in told["files"].values())
    assert told["parity"] == json.loads((out / "bundle.json").read_text())["parity"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert Editor.from_pretrained(out).edit(pictures[0], "dog", steps=1, size=16).images


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "taken"], "taken is there already: remove it, or choose another output"),
        (["-o", "no/such/bundle"], "there is no folder"),
        (["-o", "bundle", "--dtype", "int3"], "unknown dtype 'int3': a bundle computes in one of float32, float16"),
        (["-o", "bundle", "--dtype", "bfloat16"], "unknown dtype 'bfloat16'"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_model_is_read(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    assert main(["export", "no-such-model", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert (tmp_path / "taken" / "notes.txt").read_text() == "mine"


def test_a_bundle_is_not_exported_again(tiny_bundle, tmp_path, capsys):
    assert main(["export", str(tiny_bundle), "-o", str(tmp_path / "again")]) == 2
    assert "is an exported bundle" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_20_step_edit_of_the_pocket_model_is_the_torch_backends(tmp_path):
    sample = json.loads((POCKET / "samples" / "samples.json").read_text())[0]
    picture = Image.open(POCKET / "samples" / sample["file"])
    export_bundle("pocket", tmp_path / "bundle")
    ours, theirs = (
        np.asarray(editor.edit(picture, sample["instruction"], steps=20, seed=7).images[0]).astype(float)
        for editor in (
            Editor.from_pretrained(tmp_path / "bundle"),
            Editor.from_pretrained("pocket", device="cpu", dtype="float32"),
        )
    )
    error = max(((ours - theirs) ** 2).mean(), 1e-9)  # equal pictures have no PSNR
    assert 10 * np.log10(255**2 / error) >= 45


@pytest.mark.slow
def test_a_float16_bundle_is_half_the_size_and_close(tiny_model, tiny_bundle, tiny_editor, pictures, tmp_path):
    content = export_bundle(tiny_model, tmp_path / "half", dtype="float16")
    assert content["dtype"] == "float16" and content["graphs"]["guided_step"]["inputs"]["x"]["dtype"] == "float32"
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in (tmp_path / "half", tiny_bundle)]
    assert sizes[0] < 0.6 * sizes[1]
    settings = dict(steps=10, seed=1, size=16, text_guidance=3.0)
    ours = Editor.from_pretrained(tmp_path / "half").edit(pictures[0], "make it night", **settings).latents
    exact = tiny_editor.edit(pictures[0], "make it night", **settings).latents
    assert np.linalg.norm(ours - exact) <= 0.05 * np.linalg.norm(exact)
