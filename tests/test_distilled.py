"""A model that was distilled to guide itself: told both scales, one row an edit, everywhere that edits run."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from ip2p_fast import BadInput, Editor, EditRequest, ModelError
from ip2p_fast.guidance import guidance_rows, plan_rows
from ip2p_fast.layers import embed_scales
from ip2p_fast.samplers import sampler_table
from ip2p_fast.unet import UNet

WIDTH = 16  # of tiny_student
SETTINGS = dict(steps=4, size=16, seed=1)


@pytest.fixture(scope="module")
def editor(tiny_student):
    return Editor.from_pretrained(tiny_student, device="cpu", dtype="float32")


def test_the_unet_is_diffusers_with_the_embedded_scales_as_its_condition(tiny_student):
    from diffusers import UNet2DConditionModel

    theirs = UNet2DConditionModel.from_pretrained(tiny_student / "unet")
    ours = UNet.load(json.loads((tiny_student / "unet" / "config.json").read_text()), theirs.state_dict())
    random = torch.Generator().manual_seed(0)
    latents, context = (torch.randn(shape, generator=random) for shape in ((3, 8, 8, 8), (3, 77, 32)))
    timesteps, scales = torch.tensor([900.0, 500.0, 20.0]), torch.tensor([[7.5, 1.5], [1.0, 1.0], [3.0, 2.0]])
    with torch.inference_mode():
        expected = theirs(latents, timesteps, context, timestep_cond=embed_scales(scales, WIDTH)).sample
        found = ours(latents, timesteps, ours.text_keys_values(context), scales=scales)
        others = ours(latents, timesteps, ours.text_keys_values(context), scales=scales + 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(others, expected, rtol=1e-2, atol=1e-2)


def test_the_embedding_is_that_of_latent_consistency_models_for_each_scale():
    """Written out for one frequency at a time."""
    embedded = embed_scales(torch.tensor([[2.0, 0.5]]), 16)[0]
    for i in range(4):
        frequency = 10000.0 ** (-i / 3)
        for j, scale in enumerate((2.0, 0.5)):
            assert embedded[8 * j + i].item() == pytest.approx(np.sin(1000 * scale * frequency), abs=1e-3)
            assert embedded[8 * j + 4 + i].item() == pytest.approx(np.cos(1000 * scale * frequency), abs=1e-3)


def test_every_edit_is_one_row_with_its_scales():
    plan = plan_rows([guidance_rows(7.5, 1.5, distilled=True), guidance_rows(1.0, 1.0, distilled=True)])
    assert plan.edit.tolist() == [0, 1] and plan.weight.tolist() == [1.0, 1.0]
    assert plan.text.all() and plan.image.all()
    np.testing.assert_array_equal(plan.scales, np.float32([[7.5, 1.5], [1.0, 1.0]]))


def test_an_edit_costs_one_row_a_step_and_follows_the_scales(editor, pictures):
    results = [
        editor.edit(pictures[0], "make it night", text_guidance=s_t, image_guidance=s_i, **SETTINGS)
        for s_t, s_i in ((7.5, 1.5), (3.0, 1.5), (7.5, 2.0))
    ]
    assert [result.row_evaluations for result in results] == [4, 4, 4]
    assert all(not np.allclose(results[0].latents, other.latents, atol=1e-3) for other in results[1:])


def test_outside_the_guidance_interval_the_scales_are_one(editor, pictures):
    never = editor.edit(pictures[0], "make it night", guidance_interval=(0.0, 0.0), text_guidance=7.5, **SETTINGS)
    ones = editor.edit(pictures[0], "make it night", text_guidance=1.0, image_guidance=1.0, **SETTINGS)
    np.testing.assert_array_equal(never.latents, ones.latents)


def test_a_negative_text_is_refused(editor, pictures):
    with pytest.raises(BadInput, match="a distilled model has no row for a negative text"):
        editor.edit(pictures[0], "make it night", negative="cat", **SETTINGS)


def test_edits_of_different_scales_share_a_step(editor, pictures):
    requests = [
        EditRequest(picture, "dog", text_guidance=s_t, steps=3, size=16, seed=i)
        for i, (picture, s_t) in enumerate(((pictures[0], 7.5), (pictures[3], 2.0)))
    ]
    alone = [editor.edit_many([request])[0].latents for request in requests]
    for together, one in zip(editor.edit_many(requests), alone, strict=True):
        np.testing.assert_allclose(together.latents, one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("max_rows", [None, 1])
def test_an_exported_student_makes_the_same_edits(editor, tiny_student_bundle, pictures, backend, max_rows):
    exported = Editor.from_pretrained(
        tiny_student_bundle, backend=backend, device="cpu", dtype="float32", max_rows=max_rows
    )
    assert exported.backend.info.distilled
    requests = [
        EditRequest(pictures[0], "make it night", text_guidance=5.0, **SETTINGS),
        EditRequest(pictures[3], "dog", image_guidance=2.0, **SETTINGS),
    ]
    for ours, theirs in zip(exported.edit_many(requests), editor.edit_many(requests), strict=True):
        assert np.linalg.norm(ours.latents - theirs.latents) <= 1e-4 * np.linalg.norm(theirs.latents)
        assert ours.row_evaluations == theirs.row_evaluations == 4


def test_the_whole_edit_in_one_graph_is_told_the_scales(editor, tiny_student_bundle, pictures):
    session = onnxruntime.InferenceSession(tiny_student_bundle / "edit.onnx", providers=["CPUExecutionProvider"])
    pixels, table = np.asarray(pictures[0]), sampler_table("euler_a", 3, editor.backend.info.schedule)
    noise = np.random.default_rng(0).standard_normal((4, 4, 8, 8), dtype=np.float32)
    scales = [(7.5, 1.5), (2.0, 1.0)]
    ids = np.stack([editor.tokenizer.encode(text).ids for text in ("", "make it night")])
    (edited,) = session.run(
        None,
        {
            "pixels": np.stack([pixels] * 2),
            "ids": np.stack([ids] * 2),
            "text_guidance": np.float32([[s_t] for s_t, _ in scales]),
            "image_guidance": np.float32([[s_i] for _, s_i in scales]),
            "start_scale": np.full((2, 1), table.start_scale, np.float32),
            "timesteps": np.stack([table.timesteps] * 2),
            "coefficients": np.stack([table.coefficients] * 2),
            "noise": np.stack([noise] * 2),
        },
    )
    for picture, (s_t, s_i) in zip(edited, scales, strict=True):
        settings = dict(steps=3, size=16, noise=noise, text_guidance=s_t, image_guidance=s_i)
        expected = np.asarray(editor.edit(pixels, "make it night", **settings).images[0])
        assert np.abs(picture.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("conditions", [None, [], ["text_guidance"], ["image_guidance", "text_guidance"]])
def test_a_condition_of_another_kind_is_refused(tiny_student, conditions):
    config = json.loads((tiny_student / "unet" / "config.json").read_text()) | {"conditioned_on": conditions}
    if conditions is None:
        del config["conditioned_on"]
    with pytest.raises(ModelError, match="time_cond_proj_dim = 16 is supported where conditioned_on is"):
        UNet.load(config, {})


@pytest.mark.parametrize("width", [4, 18, "16"])
def test_a_width_that_cannot_be_embedded_is_refused(tiny_student, width):
    config = json.loads((tiny_student / "unet" / "config.json").read_text()) | {"time_cond_proj_dim": width}
    with pytest.raises(ModelError, match=f"time_cond_proj_dim = {width!r} must be a multiple of 4 from 8"):
        UNet.load(config, {})
