"""TensorRT engines of a bundle, built without a GPU, and all of the backend that runs without one.

What needs a GPU is in tests/gpu/test_tensorrt.py.
"""

import contextlib
import io
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ip2p_fast import BadInput, Editor, ModelError
from ip2p_fast.backends import cuda_memory, tensorrt_backend, tensorrt_engine
from ip2p_fast.backends.tensorrt_backend import TensorRtRunner
from ip2p_fast.backends.tensorrt_engine import Limits, build_engine, build_engines, read_engines
from ip2p_fast.backends.tensorrt_library import KIND, VERSION, Log, trt
from ip2p_fast.bundle import GRAPHS, TensorSpec, read_bundle
from ip2p_fast.checkpoints import POCKET
from ip2p_fast.cli import main

pytestmark = pytest.mark.skipif(KIND != "tensorrt_rtx", reason="TensorRT builds for the GPU that is there alone")


@pytest.fixture(scope="module")
def built(tiny_bundle, tmp_path_factory):
    """A bundle with engines for SM89; what the command printed."""
    folder, printed = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("engines") / "bundle"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["export", "engines", str(folder), "--gpu", "sm89", "--max-edits", "2", "--json"]) == 0
    return folder, json.loads(printed.getvalue())


@pytest.fixture
def engines(built, tmp_path):
    """A copy that may be damaged, and the folder of its engines."""
    bundle = shutil.copytree(built[0], tmp_path / "bundle")
    return bundle, bundle / "tensorrt" / f"{KIND}-{VERSION}-sm89"


def test_the_command_builds_every_graph_and_says_for_what(built):
    folder, told = built
    assert told["out"] == str(folder / "tensorrt" / f"{KIND}-{VERSION}-sm89")
    assert (told["library"], told["version"], told["gpu"]) == (KIND, VERSION, "sm89")
    assert told["files"].keys() == {f"{name}.engine" for name in GRAPHS}
    assert told["limits"] == {"edits": 2, "smallest": 8, "size": 16, "largest": 24}
    limits, files = read_engines(read_bundle(folder), "sm89")
    assert limits.edits == 2 and all(path.stat().st_size > 10_000 for path in files.values())


def test_engines_for_another_gpu_or_bundle_are_not_taken(built, tiny_student_bundle):
    folder, _ = built
    assert read_engines(read_bundle(folder), "sm90") is None
    assert read_engines(read_bundle(tiny_student_bundle), "sm89") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "0.1"}, "are of version '0.1', and '.*' is needed: remove the folder"),
        ({"gpu": "sm80"}, "are of gpu 'sm80', and 'sm89' is needed"),
        ({"library": "abacus"}, "are of library 'abacus'"),
        ({"bundle": "0" * 64}, "are of bundle '000"),
        ({"schema": 2}, "are of schema 2, and 1 is needed"),
        ({"limits": {"edits": 1}}, "engines.json is damaged"),
        ({"files": {}}, "engines.json is damaged"),
    ],
)
def test_engines_of_something_else_are_refused_with_the_way_out(engines, change, message):
    bundle, folder = engines
    facts = json.loads((folder / "engines.json").read_text())
    (folder / "engines.json").write_text(json.dumps(facts | change))
    with pytest.raises(ModelError, match=message):
        read_engines(read_bundle(bundle), "sm89")


def test_a_damaged_engine_is_named(engines):
    bundle, folder = engines
    with (folder / "vae_decoder.engine").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ModelError, match="vae_decoder.engine has 1000 bytes, must have"):
        read_engines(read_bundle(bundle), "sm89")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("a bug"), OSError("no space left")])
def test_a_build_that_ends_early_leaves_nothing_to_load(tiny_bundle, tmp_path, monkeypatch, error):
    bundle = read_bundle(shutil.copytree(tiny_bundle, tmp_path / "bundle"))

    def fails(bundle, name, *_):
        if name == "vae_encoder":
            raise error
        return b"engine"

    monkeypatch.setattr(tensorrt_engine, "build_engine", fails)
    with pytest.raises((KeyboardInterrupt, RuntimeError, BadInput)):
        build_engines(bundle, "sm89", Limits.of(bundle))
    assert read_engines(bundle, "sm89") is None
    assert not list((bundle.folder / "tensorrt").iterdir())


def test_a_bundle_that_cannot_be_written_is_said(tiny_bundle, tmp_path, monkeypatch):
    bundle = read_bundle(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (bundle.folder / "tensorrt").write_text("in the way")
    with pytest.raises(BadInput, match="cannot write .*tensorrt: .*; copy the bundle to a place of your own"):
        build_engines(bundle, "sm89", Limits.of(bundle))


def graph_of(node, path):
    """An ONNX file of one operation on [N, 4]."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy")
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)]
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opsets, ir_version=10), path)


def parsed(path):
    network = trt.Builder(Log()).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    tensorrt_engine._parse(network, Log(), path)


def test_an_operation_that_is_not_supported_is_named_with_its_place(tmp_path):
    graph_of(helper.make_node("Sparkle", ["x"], ["y"], name="the_odd_one", domain="mine"), tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match=rf"odd.onnx: {KIND} {VERSION} cannot take Sparkle \(node the_odd_one\)"):
        parsed(tmp_path / "odd.onnx")


def test_a_truncated_graph_is_refused(tiny_bundle, tmp_path):
    (tmp_path / "cut.onnx").write_bytes((tiny_bundle / "text_encoder.onnx").read_bytes()[:500])
    with pytest.raises(ModelError, match="cut.onnx"):
        parsed(tmp_path / "cut.onnx")


@pytest.mark.parametrize("gpu", ["sm12", "rtx4090", "", "none", "current"])
def test_an_unknown_gpu_is_refused_with_those_known(tiny_bundle, gpu):
    bundle = read_bundle(tiny_bundle)
    with pytest.raises(BadInput, match=f"unknown GPU '{gpu}': .* builds for .*sm89"):
        build_engine(bundle, "text_encoder", gpu, Limits.of(bundle))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"edits": 0}, "an engine of 0 edits"),
        ({"sizes": (32, 16, 64)}, "sizes 32, 16, 64: the smallest, the usual and the largest, in that order"),
        ({"sizes": (0, 16, 64)}, "sizes 0, 16, 64"),
        ({"sizes": (8, 15, 64)}, "size 15 is no multiple of 4"),
    ],
)
def test_limits_that_make_no_sense_are_refused(tiny_bundle, settings, message):
    with pytest.raises(BadInput, match=message):
        Limits.of(read_bundle(tiny_bundle), **settings)


def test_sizes_are_three_numbers(tiny_bundle, capsys):
    assert main(["export", "engines", str(tiny_bundle), "--gpu", "sm89", "--sizes", "16"]) == 2
    assert "--sizes is '16': three numbers with commas" in capsys.readouterr().err


def test_shapes_follow_from_the_limits():
    limits = Limits(edits=4, smallest=256, size=512, largest=768)
    x = TensorSpec("float32", ("B", 4, "h", "w"))
    assert limits.shapes(x, 8) == ((1, 4, 32, 32), (1, 4, 64, 64), (4, 4, 96, 96))
    assert limits.shapes(TensorSpec("int64", ("R",)), 8) == ((1,), (3,), (12,))
    limits.require("guided_step", "x", x, (2, 4, 32, 96), 8)
    with pytest.raises(BadInput, match="guided_step: w of x is 97, and its engine takes 32 to 96: .*export engines"):
        limits.require("guided_step", "x", x, (2, 4, 32, 97), 8)


def built_for(bundle, name, gpu):
    """Builds, and tells what the library was given: inputs, outputs and their profile."""
    seen = {}
    parse = tensorrt_engine._parse

    def watched(network, log, path):
        parse(network, log, path)
        seen["inputs"] = [network.get_input(i).name for i in range(network.num_inputs)]
        seen["outputs"] = [network.get_output(i).name for i in range(network.num_outputs)]
        seen["layers"] = network.num_layers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorrt_engine, "_parse", watched)
        return build_engine(bundle, name, gpu, Limits.of(bundle)), seen


@pytest.mark.parametrize("gpu", ["sm80", "sm86", "sm89", "sm120"])
def test_the_pocket_step_is_built_for_every_gpu_with_no_layer_refused(gpu):
    bundle = read_bundle(POCKET)
    engine, seen = built_for(bundle, "guided_step", gpu)
    graph = bundle.graphs["guided_step"]
    assert seen["inputs"] == list(graph.inputs) and seen["outputs"] == list(graph.outputs) and seen["layers"] > 500
    # all weights, in float32, are inside
    assert engine.nbytes > 1.9 * bundle.files["unet/diffusion_pytorch_model.safetensors"].bytes


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("gpu", ["sm80", "sm86", "sm89", "sm120"])
def test_the_step_of_sd15s_size_is_built_for_every_gpu(tmp_path_factory, gpu):
    from ip2p_fast.benchmarks.random_model import SD15, save_random_model
    from ip2p_fast.export.bundle_folder import export_bundle

    root = tmp_path_factory.getbasetemp() / "sd15"
    if not (root / "bundle").exists():
        root.mkdir()
        export_bundle(save_random_model(SD15, root / "model"), root / "bundle")
    bundle = read_bundle(root / "bundle")
    engine, seen = built_for(bundle, "guided_step", gpu)
    assert seen["inputs"] == list(bundle.graphs["guided_step"].inputs)
    assert engine.nbytes > 1.5 * bundle.files["unet.safetensors"].bytes


def test_without_a_gpu_the_backend_says_so(tiny_bundle):
    status, count = cuda_memory.cuda.cudaGetDeviceCount()
    if not int(status) and count:
        pytest.skip("there is a GPU here")
    with pytest.raises(BadInput, match="device 'cuda:0' is not there: CUDA finds 0 GPUs"):
        Editor.from_pretrained(tiny_bundle, backend="tensorrt")


@pytest.mark.parametrize("device", ["cpu", "cuda:", "cuda:x", "gpu", ""])
def test_an_unknown_device_is_refused(tiny_bundle, device):
    with pytest.raises(BadInput, match=f"unknown device '{device}': the tensorrt backend runs on auto, cuda or cuda:N"):
        Editor.from_pretrained(tiny_bundle, backend="tensorrt", device=device)


class FakeArray:
    """Memory of a GPU that is not there: the host's, with a count of what was sent."""

    def __init__(self, shape, dtype):
        self.on_gpu, self.sent, self.freed = np.zeros(shape, dtype), 0, False
        self.pointer = id(self)

    def send(self, array):
        self.on_gpu, self.sent = array.copy(), self.sent + 1

    def fetch(self):
        return self.on_gpu

    def free(self):
        self.freed = True


class FakeGpu:
    """Keeps what was asked of it in order."""

    index, stream = 0, 7

    def __init__(self):
        self.arrays, self.asked = {}, []

    def empty(self, shape, dtype):
        array = FakeArray(shape, dtype)
        self.arrays[array.pointer] = array
        return array

    def synchronize(self):
        self.asked.append("synchronize")

    def capture(self, work):
        self.asked.append("capture")
        return work

    def launch(self, graph):
        self.asked.append("launch")
        graph()


class FakeEngine:
    """One input x, of which y is the double; runs where its context's addresses say."""

    def __init__(self, gpu):
        self.gpu, self.contexts = gpu, []

    def create_runtime_config(self):
        return type("Config", (), {})()

    def create_execution_context(self, config=None):
        self.contexts.append(FakeContext(self.gpu))
        return self.contexts[-1]

    def get_tensor_dtype(self, name):
        return trt.float32


class FakeContext:
    def __init__(self, gpu):
        self.gpu, self.shape, self.at = gpu, None, {}

    def set_input_shape(self, name, shape):
        self.shape = shape

    def get_tensor_shape(self, name):
        return self.shape

    def set_tensor_address(self, name, pointer):
        self.at[name] = self.gpu.arrays[pointer]

    def execute_async_v3(self, stream):
        assert stream == self.gpu.stream
        self.at["y"].on_gpu = 2 * self.at["x"].on_gpu
        return True


@pytest.fixture
def runner(tiny_bundle):
    bundle = read_bundle(tiny_bundle)
    x = TensorSpec("float32", ("B", 4))
    graph = type(bundle.graphs["guided_step"])("g.onnx", (), {"x": x}, {"y": x})
    small = type(bundle)(**vars(bundle) | {"graphs": {"guided_step": graph}})
    gpu = FakeGpu()
    return TensorRtRunner(small, {"guided_step": FakeEngine(gpu)}, Limits(2, 8, 16, 24), gpu), gpu


def test_an_input_is_sent_again_only_if_it_is_another_array(runner):
    run, gpu = runner
    one, other = np.ones((1, 4), np.float32), np.full((1, 4), 3, np.float32)
    for array, expected in ((one, 2), (one, 2), (other, 6), (one, 2)):
        (result,) = run.run("guided_step", {"x": array})
        np.testing.assert_array_equal(result, np.full((1, 4), expected, np.float32))
    assert [array.sent for array in gpu.arrays.values()] == [3, 0]
    assert gpu.asked.count("synchronize") == 4


def test_results_do_not_change_with_the_next_call(runner):
    run, _ = runner
    (first,) = run.run("guided_step", {"x": np.ones((1, 4), np.float32)})
    run.run("guided_step", {"x": np.zeros((1, 4), np.float32)})
    np.testing.assert_array_equal(first, np.full((1, 4), 2, np.float32))


@pytest.mark.parametrize(("kind", "expected"), [("tensorrt", ["capture", "launch", "launch"]), ("tensorrt_rtx", [])])
def test_tensorrt_is_captured_once_and_launched_and_rtx_does_so_itself(runner, monkeypatch, kind, expected):
    monkeypatch.setattr(tensorrt_backend, "KIND", kind)
    run, gpu = runner
    for _ in range(3):
        run.run("guided_step", {"x": np.ones((1, 4), np.float32)})
    assert [word for word in gpu.asked if word != "synchronize"] == expected


def test_memory_of_shapes_long_unused_is_freed(runner, monkeypatch):
    monkeypatch.setattr(tensorrt_backend, "SHAPES_KEPT", 1)
    run, gpu = runner
    for edits in (1, 2):
        run.run("guided_step", {"x": np.ones((edits, 4), np.float32)})
    assert [array.freed for array in gpu.arrays.values()] == [True, True, False, False]


def test_more_than_the_engine_takes_is_refused_before_memory_is_taken(runner):
    run, gpu = runner
    with pytest.raises(BadInput, match="guided_step: B of x is 3, and its engine takes 1 to 2"):
        run.run("guided_step", {"x": np.ones((3, 4), np.float32)})
    assert not gpu.arrays
