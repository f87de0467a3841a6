"""The ONNX files: plain, whole, dynamic where they should be, and exact about what is left out."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ip2p_fast import Editor, kernels
from ip2p_fast.bundle import GRAPHS, TensorSpec, read_bundle
from ip2p_fast.errors import ModelError
from ip2p_fast.export.graphs import TracedGraph
from ip2p_fast.export.onnx_file import OPSET, versions, write_onnx
from ip2p_fast.samplers import sampler_table


@pytest.fixture(scope="module")
def guided_step(tiny_bundle):
    """Runs the graph; returns x' and history'."""
    session = onnxruntime.InferenceSession(tiny_bundle / "guided_step.onnx", providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


@pytest.fixture
def inputs():
    """Two edits, of three rows and of two."""
    random = np.random.default_rng(5)

    def normal(*shape):
        return random.standard_normal(shape, dtype=np.float32)

    return {
        "x": normal(2, 4, 8, 12),
        "history": normal(2, 2, 4, 8, 12),
        "image_latents": normal(2, 4, 8, 12),
        "contexts": normal(3, 77, 32),
        "edit": np.array([0, 0, 0, 1, 1]),
        "context": np.array([1, 0, 0, 2, 0]),
        "image_on": np.array([True, True, False, True, True]),
        "weight": np.array([7.5, -6.0, -0.5, 3.0, -2.0], np.float32),
        "timesteps": np.array([800.5, 20.0], np.float32),
        "coefficients": normal(2, 7),
        "noise": normal(2, 4, 8, 12),
    }


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_has_standard_operations_alone(tiny_bundle, name):
    model = onnx.load(tiny_bundle / f"{name}.onnx", load_external_data=False)
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    assert versions(tiny_bundle / f"{name}.onnx")["opset"] == OPSET


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_tells_nothing_of_the_machine_that_traced_it(tiny_bundle, name):
    content = (tiny_bundle / f"{name}.onnx").read_bytes()
    assert b"stack_trace" not in content and b".py" not in content


def test_weights_are_there_once(tiny_bundle, tiny_pipeline):
    model = onnx.load(tiny_bundle / "guided_step.onnx")
    large = [tensor.raw_data for tensor in model.graph.initializer if len(tensor.raw_data) > 1000]
    assert large and len(set(large)) == len(large)
    ours = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert ours <= 1.01 * sum(tensor.nbytes for tensor in tiny_pipeline.unet.state_dict().values())


def test_weights_above_the_limit_lie_in_a_file_of_their_own(tiny_bundle):
    names = {path.name for path in tiny_bundle.glob("*.data")}
    assert names == {"guided_step.onnx.data"}
    assert (tiny_bundle / "guided_step.onnx").stat().st_size < 1_000_000
    assert (tiny_bundle / "guided_step.onnx.data").stat().st_size > 1_000_000


def test_inputs_and_outputs_are_those_that_bundle_json_lists(tiny_bundle):
    for graph in read_bundle(tiny_bundle).graphs.values():
        model = onnx.load(tiny_bundle / graph.file, load_external_data=False)
        assert [value.name for value in model.graph.input] == list(graph.inputs)
        assert [value.name for value in model.graph.output] == list(graph.outputs)


def test_the_step_is_the_kernels_guided_step(guided_step, inputs):
    """The rows' sum, read from a step that gives nothing else, then the step itself by the reference kernel."""
    alone = {**inputs, "coefficients": np.tile(np.array([0, 0, 0, 0, 0, 0, 1], np.float32), (2, 1))}
    guided = torch.from_numpy(guided_step(alone)[1][:, 0])
    with kernels.use("reference"):
        expected = kernels.guided_step(
            guided,
            torch.tensor([0, 1, 2]),
            torch.ones(2),
            *(torch.from_numpy(inputs[name]) for name in ("x", "history", "coefficients", "noise")),
        )
    for ours, theirs in zip(guided_step(inputs), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)


def test_terms_of_zero_coefficient_are_left_out_whatever_they_hold(guided_step, inputs):
    a, b0, b1, b2, c, p, q = range(7)
    inputs["coefficients"][0, [b1, b2, c]] = 0.0
    clean = guided_step(inputs)
    inputs["history"][0], inputs["noise"][0] = np.nan, np.inf
    spoiled = guided_step(inputs)
    np.testing.assert_array_equal(spoiled[0], clean[0])
    np.testing.assert_array_equal(spoiled[1][:, 0], clean[1][:, 0])
    assert np.isnan(spoiled[1][0, 1]).all()  # the earlier prediction is handed on as it is


def test_rows_of_zero_weight_and_null_images_are_left_out_whatever_they_hold(guided_step, inputs):
    inputs["weight"][[1, 4]] = 0.0
    inputs["context"] = np.array([1, 0, 1, 2, 0])
    clean = guided_step(inputs)
    inputs["contexts"][0] = np.nan  # only the rows of weight zero read it
    for ours, expected in zip(guided_step(inputs), clean, strict=True):
        np.testing.assert_array_equal(ours, expected)
    inputs["image_on"][:] = False
    blind = guided_step(inputs)
    inputs["image_latents"][:] = np.nan
    for ours, expected in zip(guided_step(inputs), blind, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_an_edit_that_went_wrong_leaves_the_others_alone(guided_step, inputs):
    clean = guided_step(inputs)[0]
    inputs["x"][1] = np.nan
    spoiled = guided_step(inputs)[0]
    np.testing.assert_allclose(spoiled[0], clean[0], rtol=1e-5, atol=1e-5)
    assert np.isnan(spoiled[1]).any()


def test_an_edit_written_by_hand_from_the_document_is_the_editors(tiny_bundle, guided_step, pictures):
    """docs/embedding.md: four graphs, a sampler's table and numpy are all there is to an edit."""
    bundle, editor = read_bundle(tiny_bundle), Editor.from_pretrained(tiny_bundle)
    table = sampler_table("euler_a", 3, bundle.schedule)
    noise = np.random.default_rng(2).standard_normal((4, 4, 8, 12), dtype=np.float32)

    def run(name, **inputs):
        session = onnxruntime.InferenceSession(tiny_bundle / f"{name}.onnx", providers=["CPUExecutionProvider"])
        return session.run(None, inputs)[0]

    texts = np.stack([editor.tokenizer.encode(text).ids for text in ("", "make it night")])
    contexts, x = run("text_encoder", ids=texts), np.float32(table.start_scale) * noise[:1]
    history, latents = (
        np.zeros((1, 2, *x.shape[1:]), np.float32),
        run("vae_encoder", pixels=np.array(pictures[1])[None]),
    )
    for step in range(3):
        rows = {
            "edit": np.zeros(3, np.int64),
            "context": np.array([1, 0, 0]),
            "image_on": np.array([True, True, False]),
        }
        numbers = {"timesteps": table.timesteps[step : step + 1], "coefficients": table.coefficients[step : step + 1]}
        numbers |= {"weight": np.array([7.5, 1.5 - 7.5, 1 - 1.5], np.float32), "noise": noise[1 + step : 2 + step]}
        state = {"x": x, "history": history, "image_latents": latents, "contexts": contexts}
        x, history = guided_step(state | rows | numbers)
    result = editor.edit(pictures[1], "make it night", steps=3, size=24, noise=noise)
    np.testing.assert_allclose(x[0], result.latents[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(run("vae_decoder", latents=result.latents)[0], np.asarray(result.images[0]))


class FixesItsRows(torch.nn.Module):
    def forward(self, x):
        return x + torch.zeros(3, 4)


def test_an_axis_that_the_trace_fixed_is_an_error(tmp_path):
    spec = TensorSpec("float32", ("N", 4))
    graph = TracedGraph("fixed", FixesItsRows(), {"x": spec}, {"y": spec}, {"N": 3})
    with pytest.raises(ModelError, match="fixed cannot be traced"):
        write_onnx(graph, tmp_path / "fixed.onnx")


class Doubles(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def test_an_output_of_another_shape_than_told_is_an_error(tmp_path):
    graph = TracedGraph(
        "doubles", Doubles(), {"x": TensorSpec("float32", ("N", 4))}, {"y": TensorSpec("float32", ("N", 5))}, {"N": 3}
    )
    with pytest.raises(ModelError, match="doubles: y became .* was asked for"):
        write_onnx(graph, tmp_path / "doubles.onnx")
