"""The ONNX files: plain, whole, dynamic where they should be, and exact about what is left out."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ip2p_fast import Editor, kernels
from ip2p_fast.bundle import GRAPHS, TensorSpec, read_bundle
from ip2p_fast.errors import ModelError
from ip2p_fast.export import onnx_file
from ip2p_fast.export.graphs import TracedGraph
from ip2p_fast.export.onnx_file import OPSET, versions, write_onnx
from ip2p_fast.export.stored_weights import SMALLEST, StoredWeights
from ip2p_fast.samplers import sampler_table

ALL_GRAPHS = (*GRAPHS, "edit")


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


@pytest.mark.parametrize("name", ALL_GRAPHS)
def test_a_graph_has_standard_operations_alone(tiny_bundle, name):
    model = onnx.load(tiny_bundle / f"{name}.onnx", load_external_data=False)
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    assert versions(tiny_bundle / f"{name}.onnx")["opset"] == OPSET


@pytest.mark.parametrize("name", ALL_GRAPHS)
def test_a_graph_tells_nothing_of_the_machine_that_traced_it(tiny_bundle, name):
    content = (tiny_bundle / f"{name}.onnx").read_bytes()
    assert b"stack_trace" not in content and b".py" not in content


@pytest.mark.parametrize("name", ALL_GRAPHS)
def test_weights_are_the_models_own_there_once_for_all_graphs(tiny_bundle, name):
    model = onnx.load(tiny_bundle / f"{name}.onnx", load_external_data=False)
    inside = [tensor for tensor in model.graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL]
    # the attention mask of 77 tokens is no weight
    assert all(len(tensor.raw_data) < 4 * SMALLEST or list(tensor.dims)[-2:] == [77, 77] for tensor in inside)
    outside = [entry.value for t in model.graph.initializer for entry in t.external_data if entry.key == "location"]
    content = json.loads((tiny_bundle / "bundle.json").read_text())["graphs"]
    assert set(outside) == set(content[name]["weights"]) and outside
    assert not list(tiny_bundle.glob("*.data"))


def test_every_weight_of_the_checkpoint_is_read_by_the_whole_edit(tiny_bundle):
    """Names of initialisers are those of the files' tensors, or of the halves of a gated layer."""
    model = onnx.load(tiny_bundle / "edit.onnx", load_external_data=False)
    names = [tensor.name.split("/")[1] for tensor in model.graph.initializer if tensor.external_data]
    read = {name.removesuffix(".0").removesuffix(".1") for name in names}
    for file in ("unet", "text_encoder", "vae"):
        with safe_open(tiny_bundle / f"{file}.safetensors", "numpy") as tensors:
            large = {name for name in tensors.keys() if tensors.get_tensor(name).size >= SMALLEST}  # noqa: SIM118
        assert large <= read


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_in_a_half_format_stay_in_it_and_compute_in_float32(tmp_path, dtype):
    torch.manual_seed(0)
    layer = torch.nn.Linear(40, 50).to(getattr(torch, dtype))
    save_file({"weight": layer.weight, "bias": layer.bias}, tmp_path / "layer.safetensors")
    graph = TracedGraph(
        "layer",
        layer.float(),
        {"x": TensorSpec("float32", ("N", 40))},
        {"y": TensorSpec("float32", ("N", 50))},
        {"N": 3},
    )
    stored = StoredWeights(tmp_path, ["layer.safetensors"])
    assert write_onnx(graph, tmp_path / "layer.onnx", stored) == ("layer.safetensors",)
    (weight,) = [
        t for t in onnx.load(tmp_path / "layer.onnx", load_external_data=False).graph.initializer if t.external_data
    ]
    assert weight.data_type == getattr(onnx.TensorProto, dtype.upper())
    x = torch.randn(4, 40)
    session = onnxruntime.InferenceSession(tmp_path / "layer.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], layer(x).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_weights_that_are_in_no_file_are_an_error_when_they_are_many(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    spec = TensorSpec("float32", ("N", 40))
    graph = TracedGraph("layer", torch.nn.Linear(40, 40), {"x": spec}, {"y": spec}, {"N": 3})
    with pytest.raises(ModelError, match=r"layer has \d+ bytes of weights that are in none of the model's files, 1000"):
        write_onnx(graph, tmp_path / "layer.onnx", StoredWeights(tmp_path, []))


def test_inputs_and_outputs_are_those_that_bundle_json_lists(tiny_bundle):
    graphs = json.loads((tiny_bundle / "bundle.json").read_text())["graphs"]
    assert graphs.keys() == set(ALL_GRAPHS)
    for graph in graphs.values():
        model = onnx.load(tiny_bundle / graph["file"], load_external_data=False)
        assert [value.name for value in model.graph.input] == list(graph["inputs"])
        assert [value.name for value in model.graph.output] == list(graph["outputs"])


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
    bundle, editor = read_bundle(tiny_bundle), Editor.from_pretrained(tiny_bundle, backend="onnx")
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
        write_onnx(graph, tmp_path / "fixed.onnx", StoredWeights(tmp_path, []))


class Doubles(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def test_an_output_of_another_shape_than_told_is_an_error(tmp_path):
    graph = TracedGraph(
        "doubles", Doubles(), {"x": TensorSpec("float32", ("N", 4))}, {"y": TensorSpec("float32", ("N", 5))}, {"N": 3}
    )
    with pytest.raises(ModelError, match="doubles: y became .* was asked for"):
        write_onnx(graph, tmp_path / "doubles.onnx", StoredWeights(tmp_path, []))


class TellsShapes(torch.nn.Module):
    """Three weights of the same bytes: as a vector, as a square, and as a square's transpose."""

    def __init__(self):
        super().__init__()
        self.vector = torch.nn.Parameter(torch.ones(1600))
        self.square = torch.nn.Parameter(torch.ones(40, 40))
        self.layer = torch.nn.Linear(40, 40, bias=False)
        torch.nn.init.ones_(self.layer.weight)

    def forward(self, x):
        return self.layer(x) + x @ self.square + (x.repeat(1, 40) * self.vector)[:, :40]


def test_weights_of_the_same_bytes_keep_their_own_shapes(tmp_path):
    save_file({"ones": torch.ones(1600, dtype=torch.float16)}, tmp_path / "ones.safetensors")
    spec = TensorSpec("float32", ("N", 40))
    graph = TracedGraph("shapes", TellsShapes(), {"x": spec}, {"y": spec}, {"N": 3})
    assert write_onnx(graph, tmp_path / "shapes.onnx", StoredWeights(tmp_path, ["ones.safetensors"]))
    x = torch.randn(4, 40)
    session = onnxruntime.InferenceSession(tmp_path / "shapes.onnx", providers=["CPUExecutionProvider"])
    expected = graph.module(x).detach().numpy()
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], expected, rtol=1e-5, atol=1e-5)
