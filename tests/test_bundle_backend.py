"""Exported bundles in every library that runs them: the same edits as the torch backend's in float32."""

import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ip2p_fast import BadInput, Editor, EditRequest
from ip2p_fast.guidance import dual_guidance
from ip2p_fast.loop import LoopEdit, StepLoop
from ip2p_fast.samplers import SAMPLERS, sampler_table
from ip2p_fast.sharing import Sharing


def same_latents(ours, theirs):
    return np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)


def same_picture(ours, theirs):
    return (np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int)) <= 1).mean() >= 0.999


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert same_latents(one.latents, other.latents)
        assert all(same_picture(a, b) for a, b in zip(one.images, other.images, strict=True))
        assert (one.seed, one.row_evaluations) == (other.seed, other.row_evaluations)


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def bundle_editor(tiny_bundle, request):
    return Editor.from_pretrained(tiny_bundle, backend=request.param, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def torch_editor(tiny_model):
    """Of the folder that the bundle was made of: its scheduler's file says more than the pipeline in memory."""
    return Editor.from_pretrained(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def mixed(pictures):
    """Three rows, two, and one; four sizes; five samplers; different steps, seeds, texts; a mask."""
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (8, 0, 16, 16))
    return [
        EditRequest(pictures[0], "make it night", steps=6, seed=1, size=16),
        EditRequest(pictures[1], "add 3 trees", image_guidance=1.0, steps=4, seed=2, size=24, sampler="ddim"),
        EditRequest(pictures[2], "dog", text_guidance=1.0, image_guidance=1.0, steps=3, seed=3, size=32),
        EditRequest(pictures[3], "a dog", negative="cat", steps=5, seed=4, size=16, sampler="dpmpp_2m", num_images=2),
        EditRequest(pictures[3], "winter", steps=5, seed=5, size=16, sampler="euler", mask=mask),
        EditRequest(pictures[1], "make it night", steps=4, seed=6, size=24, sampler="lcm"),
        EditRequest(pictures[0], "dog", steps=2, seed=8, size=4),  # the smallest there is
        EditRequest(pictures[0], "dog", steps=8, seed=7, size=16, guidance_interval=(0.25, 0.75)),
    ]


def test_a_backend_says_what_it_is(bundle_editor, tiny_bundle, request):
    backend = bundle_editor.backend
    assert backend.name in request.node.name and (backend.device, backend.dtype) == ("cpu", "float32")
    assert bundle_editor.model_path == str(tiny_bundle)


def test_any_mix_of_edits_equals_the_torch_backend(bundle_editor, torch_editor, mixed):
    assert_same(bundle_editor.edit_many(mixed), torch_editor.edit_many(mixed))


@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_every_sampler_equals_the_torch_backend(bundle_editor, torch_editor, pictures, sampler, steps):
    requests = [
        EditRequest(
            picture,
            "make it night",
            text_guidance=5.0,
            image_guidance=scale,
            size=max(picture.size),
            sampler=sampler,
            steps=steps,
            seed=seed,
        )
        for seed, (picture, scale) in enumerate(zip(pictures, (1.5, 1.0, 1.2, 5.0), strict=True))
    ]
    assert_same(bundle_editor.edit_many(requests), torch_editor.edit_many(requests))


def test_masks_keep_the_inputs_own_pixels(bundle_editor, pictures):
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (8, 0, 16, 16))
    edited = bundle_editor.edit(pictures[0], "make it night", steps=3, seed=1, size=16, mask=mask).images[0]
    before = np.asarray(pictures[0].convert("RGB"))
    np.testing.assert_array_equal(np.asarray(edited)[:, :8], before[:, :8])
    assert not np.array_equal(np.asarray(edited)[:, 8:], before[:, 8:])


def test_previews_are_those_of_the_torch_backend_and_end_as_the_picture(bundle_editor, torch_editor, pictures):
    def previews_and_picture(editor):
        seen = []
        result = editor.edit(
            pictures[1], "dog", steps=3, seed=2, size=24, on_step=lambda progress: seen.append(progress.preview())
        )
        return seen, np.asarray(result.images[0])

    (ours, picture), (theirs, _) = (previews_and_picture(editor) for editor in (bundle_editor, torch_editor))
    assert len(ours) == 3 and all(same_picture(a, b) for a, b in zip(ours, theirs, strict=True))
    np.testing.assert_array_equal(ours[-1], picture)  # Euler's last step lands on the prediction itself


@pytest.mark.parametrize("max_rows", [1, 2, 4])
def test_max_rows_bounds_every_run_and_changes_nothing(bundle_editor, mixed, monkeypatch, max_rows):
    backend = bundle_editor.backend
    run, sizes = backend._run, []

    def watched(graph, **inputs):
        if graph == "guided_step":
            sizes.append(len(inputs["edit"]))
        return run(graph, **inputs)

    monkeypatch.setattr(backend, "_run", watched)
    split = Editor(backend, bundle_editor.tokenizer, max_rows=max_rows).edit_many(mixed)
    assert max(sizes) == max_rows and sum(sizes) == sum(result.row_evaluations for result in split)
    assert_same(split, bundle_editor.edit_many(mixed))


@pytest.mark.parametrize("max_rows", [None, 1])
def test_the_guidance_delta_is_reused_as_by_the_torch_backend(bundle_editor, torch_editor, pictures, max_rows):
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (8, 0, 16, 16))
    requests = [
        EditRequest(pictures[0], "make it night", steps=6, seed=1, size=16, guidance_refresh=2),
        EditRequest(pictures[3], "dog", steps=7, seed=2, size=16, guidance_refresh=3, sampler="dpmpp_2m", mask=mask),
        EditRequest(pictures[1], "dog", steps=5, seed=3, size=24, guidance_refresh=2, guidance_interval=(0.2, 0.9)),
        EditRequest(pictures[0], "dog", steps=4, seed=4, size=16),
        EditRequest(pictures[0], "dog", steps=4, seed=4, size=16, text_guidance=0.0, guidance_refresh=2),
    ]
    ours = Editor(bundle_editor.backend, bundle_editor.tokenizer, max_rows=max_rows).edit_many(requests)
    assert_same(ours, torch_editor.edit_many(requests))


def loop_edit(editor, picture, **changes):
    info = editor.backend.info
    tokens = np.stack([editor.tokenizer.encode(text).ids for text in ("", "make it night")])
    table = sampler_table("euler_a", 4, info.schedule)
    settings = {"rows": (dual_guidance(7.5, 1.5),) * 4, "seed": 0} | changes
    return LoopEdit(np.array(picture), tokens, table, **settings)


def test_edits_join_and_leave_at_any_step(bundle_editor, pictures):
    loop = StepLoop(bundle_editor.backend)
    (alone,) = loop.add([loop_edit(bundle_editor, pictures[0], seed=3)])
    while len(loop):
        loop.step()
    expected = bundle_editor.backend.latents(alone)
    gone, _ = loop.add([loop_edit(bundle_editor, pictures[0], seed=s) for s in (1, 2)])
    loop.step()
    _, late = loop.add([loop_edit(bundle_editor, pictures[i], seed=seed) for i, seed in ((3, 9), (0, 3))])
    loop.step()
    loop.cancel(gone)
    while len(loop):
        loop.step()
    assert same_latents(bundle_editor.backend.latents(late), expected)
    loop.clear()
    assert not bundle_editor.backend._edits


def test_what_the_graphs_have_no_inputs_for_is_refused(bundle_editor, pictures):
    loop = StepLoop(bundle_editor.backend)
    source = loop_edit(bundle_editor, pictures[0])
    sharing = replace(source, sharing=Sharing(source, self_steps=(True,) * 4))
    loop.add([source, sharing])
    with pytest.raises(BadInput, match="share attention maps need the torch backend"):
        loop.step()
    loop.clear()
    no_picture = LoopEdit(None, source.tokens, source.table, source.rows, 0, size=(16, 16))
    with pytest.raises(BadInput, match="needs the torch backend"):
        loop.add([no_picture])


def test_a_row_is_evaluated_whole(bundle_editor, pictures, monkeypatch):
    monkeypatch.setattr(bundle_editor.backend, "start", lambda edits: pytest.fail("work had begun"))
    with pytest.raises(BadInput, match="leave deep_refresh at 1, or edit with the torch backend"):
        bundle_editor.edit(pictures[0], "dog", steps=4, size=16, deep_refresh=2)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from ip2p_fast import Editor
from ip2p_fast.cli import main

backend, bundle, picture, out = sys.argv[1:]
result = Editor.from_pretrained(bundle, backend=backend).edit(picture, "make it night", steps=2, seed=1, size=16)
assert result.images[0].size == (16, 16)
options = ["--model", bundle, "--backend", backend, "--steps", "2", "--seed", "1"]
assert main(["edit", picture, "-p", "make it night", "-o", out, *options]) == 0
del sys.modules["torch"]
print([name for name in sys.modules if name.split(".")[0] in ("torch", "diffusers", "transformers")])
"""


@pytest.mark.parametrize("backend", ["onnx", "openvino", "auto"])
def test_a_bundle_edits_where_pytorch_is_not_installed(tiny_bundle, pictures, tmp_path, backend):
    pictures[0].save(tmp_path / "in.png")
    arguments = [backend, tiny_bundle, tmp_path / "in.png", tmp_path / "out.png"]
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT_TORCH), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "out.png"), "[]"]
    assert Image.open(tmp_path / "out.png").size == (16, 16)
