"""edit.onnx: one call is one edit, the editor's own."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from ip2p_fast import Editor
from ip2p_fast.bundle import read_bundle
from ip2p_fast.samplers import SAMPLERS, sampler_table

SCALES = [(7.5, 1.5), (3.0, 1.0), (1.0, 1.0), (2.0, 2.0)]  # three rows, two, one, and two others


@pytest.fixture(scope="module")
def whole(tiny_bundle):
    session = onnxruntime.InferenceSession(tiny_bundle / "edit.onnx", providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]


@pytest.fixture(scope="module")
def editor(tiny_bundle):
    return Editor.from_pretrained(tiny_bundle, backend="onnx")


def inputs(editor, pixels, table, text_guidance, image_guidance, noise, negative=""):
    """Of one edit, with the axis of the batch."""
    tokens = [editor.tokenizer.encode(text).ids for text in (negative, "make it night")]
    one = {
        "pixels": pixels,
        "ids": np.stack(tokens),
        "text_guidance": np.array([text_guidance], np.float32),
        "image_guidance": np.array([image_guidance], np.float32),
        "start_scale": np.array([table.start_scale], np.float32),
        "timesteps": table.timesteps,
        "coefficients": table.coefficients,
        "noise": noise,
    }
    return {name: value[None] for name, value in one.items()}


def expected(editor, pixels, sampler, steps, text_guidance, image_guidance, noise, negative=""):
    settings = dict(sampler=sampler, steps=steps, size=max(pixels.shape[:2]), noise=noise, negative=negative)
    settings |= dict(text_guidance=text_guidance, image_guidance=image_guidance)
    return np.asarray(editor.edit(pixels, "make it night", **settings).images[0])


def normal(seed, steps, pixels):
    shape = (1 + steps, 4, pixels.shape[0] // 2, pixels.shape[1] // 2)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def nearly(ours, theirs):
    return np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_one_call_is_the_editors_edit(whole, editor, pictures, sampler, steps):
    pixels = np.asarray(pictures[1])  # not square
    table, noise = sampler_table(sampler, steps, editor.backend.info.schedule), normal(1, steps, pixels)
    edited = whole(inputs(editor, pixels, table, 5.0, 1.5, noise, negative="cat"))
    assert edited.dtype == np.uint8 and edited.shape == (1, *pixels.shape)
    assert nearly(edited[0], expected(editor, pixels, sampler, steps, 5.0, 1.5, noise, negative="cat"))


def test_edits_of_different_pictures_scales_and_rows_go_in_one_call(whole, editor, pictures):
    table = sampler_table("euler_a", 4, editor.backend.info.schedule)
    edits, alone = [], []
    for i, scales in enumerate(SCALES):
        pixels = np.asarray(pictures[0 if i % 2 else 3])
        noise = normal(i, 4, pixels)
        edits.append(inputs(editor, pixels, table, *scales, noise))
        alone.append(expected(editor, pixels, "euler_a", 4, *scales, noise))
    together = whole({name: np.concatenate([edit[name] for edit in edits]) for name in edits[0]})
    assert all(nearly(ours, theirs) for ours, theirs in zip(together, alone, strict=True))


def test_rows_of_weight_zero_are_not_run(whole, editor, pictures):
    """At s_T = s_I = 1 neither the null text nor the row without a picture is read."""
    pixels = np.asarray(pictures[0])
    table, noise = sampler_table("ddim", 2, editor.backend.info.schedule), normal(2, 2, pixels)
    one = inputs(editor, pixels, table, 1.0, 1.0, noise)
    other = inputs(editor, pixels, table, 1.0, 1.0, noise, negative="a blue dog")
    np.testing.assert_array_equal(whole(one), whole(other))
    three = [whole(inputs(editor, pixels, table, 7.5, 1.5, noise, negative)) for negative in ("", "a blue dog")]
    assert not np.array_equal(*three)


def test_what_no_step_changes_is_outside_the_loop(tiny_bundle):
    graph = onnx.load(tiny_bundle / "edit.onnx", load_external_data=False).graph
    (loop,) = [node for node in graph.node if node.op_type == "Loop"]
    inside = [name for node in loop.attribute[0].g.node for name in node.input]
    weights = {tensor.name for tensor in graph.initializer}
    text_layers = {name for name in weights if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
    assert text_layers and text_layers.isdisjoint(inside)
    assert not [node for node in loop.attribute[0].g.node if node.op_type == "Cast" and node.input[0] in weights]


def test_tables_that_come_along_are_the_samplers(tiny_bundle):
    tables, schedule = json.loads((tiny_bundle / "tables.json").read_text()), read_bundle(tiny_bundle).schedule
    assert tables.keys() == set(SAMPLERS)
    for sampler, by_steps in tables.items():
        assert set(by_steps) == {"4", "8", "20", "50"}
        for steps, told in by_steps.items():
            table = sampler_table(sampler, int(steps), schedule)
            assert told["start_scale"] == table.start_scale
            np.testing.assert_array_equal(np.float32(told["timesteps"]), table.timesteps)
            np.testing.assert_array_equal(np.float32(told["coefficients"]), table.coefficients)
