"""The TensorRT backend on a GPU: the edits of the torch backend, whatever the shapes within the engines' limits."""

import shutil

import numpy as np
import pytest

from ip2p_fast import BadInput, Editor, EditRequest

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tmp_path_factory):
    pytest.importorskip("ip2p_fast.backends.tensorrt_library", exc_type=ImportError)
    return shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("tensorrt") / "bundle")


@pytest.fixture(scope="module")
def editor(bundle):
    with pytest.warns(UserWarning, match="building them takes minutes"):
        return Editor.from_pretrained(bundle, backend="tensorrt", device="cuda")


@pytest.fixture
def requests(pictures):
    return [
        EditRequest(pictures[0], "make it night", steps=6, seed=1, size=16),
        EditRequest(pictures[3], "add 3 trees", steps=4, seed=2, size=16, image_guidance=1.0, sampler="dpmpp_2m"),
        EditRequest(pictures[1], "dog", steps=3, seed=3, size=24, text_guidance=1.0, image_guidance=1.0),
    ]


def test_any_mix_of_edits_is_the_torch_backends(editor, tiny_model, requests):
    exact = Editor.from_pretrained(tiny_model, backend="torch", device="cpu", dtype="float32")
    for ours, theirs in zip(editor.edit_many(requests), exact.edit_many(requests), strict=True):
        assert np.linalg.norm(ours.latents - theirs.latents) <= 1e-3 * np.linalg.norm(theirs.latents)


def test_the_engines_take_the_shapes_that_they_were_built_for(editor):
    runner = editor.backend._runner
    for graph, engine in runner._engines.items():
        for name, shapes in runner._limits.shapes(runner._bundle, graph).items():
            assert [tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0)] == list(shapes)


def test_shapes_that_take_turns_in_one_working_memory_keep_their_results(editor, requests):
    alone = [editor.edit_many([request])[0].latents for request in requests]
    for _ in range(2):
        for together, one in zip(editor.edit_many(requests[::2]), alone[::2], strict=True):
            np.testing.assert_allclose(together.latents, one, rtol=1e-4, atol=1e-4)


def test_the_same_edit_again_is_the_same_bits(editor, requests):
    one, again = (editor.edit_many(requests[:1])[0].latents for _ in range(2))
    np.testing.assert_array_equal(one, again)


def test_engines_are_found_again_without_building(bundle, editor, requests, recwarn):
    again = Editor.from_pretrained(bundle, backend="tensorrt", device="cuda")
    assert not [warning for warning in recwarn if "building" in str(warning.message)]
    np.testing.assert_array_equal(again.edit_many(requests[:1])[0].latents, editor.edit_many(requests[:1])[0].latents)


def test_a_size_outside_the_limits_is_refused(editor, pictures):
    with pytest.raises(BadInput, match="its engine takes"):
        editor.edit(pictures[0], "dog", steps=1, size=64)
