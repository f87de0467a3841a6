"""TensorRT engines of a bundle, built without a GPU, and all of the backend that runs without one.

What needs a GPU is in tests/gpu/test_tensorrt.py.
"""

import contextlib
import ctypes
import io
import json
import shutil
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ip2p_fast import BadInput, Editor, EditRequest, ModelError
from ip2p_fast.backends import cuda_memory, tensorrt_backend, tensorrt_engine, tensorrt_library
from ip2p_fast.backends.bundle_backend import BundleBackend, opened
from ip2p_fast.backends.cuda_memory import CudaDevice
from ip2p_fast.backends.tensorrt_backend import TensorRtRunner
from ip2p_fast.backends.tensorrt_engine import Limits, build_engine, build_engines, read_engines
from ip2p_fast.backends.tensorrt_library import KIND, LOG, VERSION, trt
from ip2p_fast.backends.tensorrt_timing import keep_timings, use_timings
from ip2p_fast.bundle import GRAPHS, Graph, TensorSpec, read_bundle
from ip2p_fast.checkpoints import POCKET
from ip2p_fast.cli import main
from ip2p_fast.errors import MissingExtra
from ip2p_fast.export.bundle_folder import export_bundle

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


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
@pytest.mark.parametrize("stored", [None, b"", b"damaged" * 40])
def test_a_timing_cache_is_kept_whatever_was_there(stored, tmp_path):
    """TensorRT-RTX's caches are empty, but what reads and writes them is the same."""
    path = tmp_path / "a.timings"
    if stored is not None:
        path.write_bytes(stored)
    for _ in range(2):
        config = trt.Builder(LOG).create_builder_config()
        use_timings(config, path)
        assert config.get_timing_cache() is not None
        keep_timings(config, path)
    assert path.stat().st_size > 0 and path.read_bytes() != stored
    assert list(tmp_path.iterdir()) == [path]


class PickyConfig:
    """A build's configuration that, as TensorRT's, takes no cache but its own; caches are their content."""

    own = (b"", b"mine")

    def create_timing_cache(self, content):
        return content if content in (*self.own, b"another GPU's") else None

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        self.cache = cache if cache in self.own else None
        return cache in self.own


@pytest.mark.parametrize("stored", [b"damaged", b"another GPU's"])
def test_timings_that_cannot_be_used_are_told_and_an_empty_cache_taken(stored, tmp_path):
    (tmp_path / "a.timings").write_bytes(stored)
    config = PickyConfig()
    with pytest.warns(UserWarning, match="a.timings is damaged, or of another version or GPU: .*replaces it"):
        use_timings(config, tmp_path / "a.timings")
    assert config.cache == b""


def test_timings_of_the_same_gpu_are_begun_with_and_nothing_is_told(tmp_path, recwarn):
    (tmp_path / "a.timings").write_bytes(b"mine")
    config = PickyConfig()
    use_timings(config, tmp_path / "a.timings")
    assert config.cache == b"mine" and not recwarn.list


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_a_build_reads_and_extends_the_timings_beside_its_engines(tiny_bundle, tmp_path, monkeypatch):
    bundle = read_bundle(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    timings = tensorrt_engine.timings_file(bundle, "sm89")
    timings.parent.mkdir()
    build_engine(bundle, "text_encoder", "sm89", Limits.of(bundle))
    assert not timings.exists()  # TensorRT-RTX measures nothing
    monkeypatch.setattr(tensorrt_engine, "KIND", "tensorrt")
    monkeypatch.setattr(tensorrt_engine, "timings_file", lambda *_: timings)
    build_engine(bundle, "text_encoder", "sm89", Limits.of(bundle))
    assert timings.is_file()


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
    engine = folder / "vae_decoder.engine"
    whole = engine.read_bytes()
    for damage in (
        lambda: engine.write_bytes(whole[:-1]),
        lambda: engine.write_bytes(whole[:-1] + b"?"),
        engine.unlink,
    ):
        damage()
        with pytest.raises(ModelError, match="vae_decoder.engine is not the engine that was built.*remove the folder"):
            read_engines(read_bundle(bundle), "sm89")


def test_an_engine_that_is_none_says_what_tensorrt_says(tmp_path):
    (tmp_path / "x.engine").write_bytes(b"?" * 1000)
    with pytest.raises(ModelError, match="x.engine cannot be loaded by .* here: .*Serialization"):
        tensorrt_backend._read(tmp_path / "x.engine")


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
    with pytest.raises(BadInput, match="cannot be written to .*tensorrt: copy the bundle to a place of your own"):
        build_engines(bundle, "sm89", Limits.of(bundle))
    (bundle.folder / "tensorrt").unlink()
    monkeypatch.setattr(tensorrt_engine.os, "access", lambda path, mode: False)  # the tests may run as root
    with pytest.raises(BadInput, match="copy the bundle to a place of your own"):
        build_engines(bundle, "sm89", Limits.of(bundle))


def test_engines_that_are_there_are_not_built_over(built):
    bundle = read_bundle(built[0])
    with pytest.raises(BadInput, match="there are engines in .*sm89 already: remove it"):
        build_engines(bundle, "sm89", Limits.of(bundle))


def graph_of(node, path):
    """An ONNX file of one operation on [N, 4]."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy")
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)]
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opsets, ir_version=10), path)


def parsed(path):
    network = trt.Builder(LOG).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    tensorrt_engine._parsed(network, path)


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
        build_engines(bundle, gpu, Limits.of(bundle))


def test_a_build_that_fails_says_why(tiny_bundle):
    bundle = read_bundle(tiny_bundle)
    graph = bundle.graphs["text_encoder"]
    other = Graph(graph.file, graph.weights, {"ids": TensorSpec("int64", ("N", 76))}, graph.outputs)
    wrong = type(bundle)(**vars(bundle) | {"graphs": {"text_encoder": other}})
    with pytest.raises(ModelError, match="text_encoder cannot be built for sm89: .*profile has min=76.*tensor has 77"):
        build_engine(wrong, "text_encoder", "sm89", Limits.of(bundle))


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


def test_shapes_follow_from_the_limits(tiny_bundle):
    bundle = read_bundle(tiny_bundle)
    limits, scale = Limits(edits=4, smallest=256, size=512, largest=768), bundle.vae_scale
    shapes = limits.shapes(bundle, "guided_step")
    assert shapes["x"] == tuple(
        (edits, 4, side // scale, side // scale) for edits, side in zip((1, 1, 4), (256, 512, 768), strict=True)
    )
    assert shapes["edit"] == ((1,), (3,), (12,))
    assert [shape[0] for shape in shapes["contexts"]] == [1, 2, 8]
    assert limits.shapes(bundle, "vae_encoder")["pixels"][2] == (1, 768, 768, 3)  # one picture at a time
    assert limits.shapes(bundle, "text_encoder")["ids"] == ((1, 77),) * 3


def test_an_edit_of_a_distilled_model_is_one_row_of_one_text(tiny_student_bundle):
    shapes = Limits(edits=4, smallest=8, size=16, largest=24).shapes(read_bundle(tiny_student_bundle), "guided_step")
    assert shapes["scales"] == ((1, 2), (1, 2), (4, 2))
    assert [shape[0] for shape in shapes["contexts"]] == [1, 1, 4]


@pytest.mark.parametrize(
    ("graph", "name", "shape", "message"),
    [
        ("guided_step", "x", (5, 4, 4, 4), "guided_step: B of x is 5, and its engine takes 1 to 4: .*export engines"),
        ("guided_step", "x", (1, 4, 4, 13), "guided_step: w of x is 13, and its engine takes 4 to 12"),
        ("vae_encoder", "pixels", (1, 4, 16, 3), "vae_encoder: H of pixels is 4, and its engine takes 8 to 24"),
    ],
)
def test_a_shape_outside_the_limits_is_refused_by_its_side(tiny_bundle, graph, name, shape, message):
    bundle, limits = read_bundle(tiny_bundle), Limits(edits=4, smallest=8, size=16, largest=24)
    inputs = {name: np.empty(usual) for name, (_, usual, _) in limits.shapes(bundle, graph).items()}
    limits.require(bundle, graph, inputs)
    with pytest.raises(BadInput, match=message):
        limits.require(bundle, graph, inputs | {name: np.empty(shape)})


def built_for(bundle, name, gpu):
    """Builds, and tells what the library was given: inputs, outputs and their profile."""
    seen = {}
    parsed = tensorrt_engine._parsed

    def watched(network, path):
        parser = parsed(network, path)
        seen["inputs"] = [network.get_input(i).name for i in range(network.num_inputs)]
        seen["outputs"] = [network.get_output(i).name for i in range(network.num_outputs)]
        seen["layers"] = network.num_layers
        return parser

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorrt_engine, "_parsed", watched)
        return build_engine(bundle, name, gpu, Limits.of(bundle)), seen


@pytest.mark.parametrize("gpu", ["sm80", "sm86", "sm89", "sm120"])
def test_the_pocket_step_is_built_for_every_gpu_with_no_layer_refused(gpu):
    bundle = read_bundle(POCKET)
    engine, seen = built_for(bundle, "guided_step", gpu)
    graph = bundle.graphs["guided_step"]
    assert seen["inputs"] == list(graph.inputs) and seen["outputs"] == list(graph.outputs) and seen["layers"] > 500
    # all weights, in float32, are inside
    assert engine.nbytes > 1.9 * bundle.files["unet/diffusion_pytorch_model.safetensors"].bytes


def test_a_bundle_in_float16_becomes_engines_in_float16(tiny_bundle, tiny_model, tmp_path):
    export_bundle(tiny_model, tmp_path / "half", "float16")
    half, full = (
        build_engine(bundle, "guided_step", "sm89", Limits.of(bundle)).nbytes
        for bundle in (read_bundle(tmp_path / "half"), read_bundle(tiny_bundle))
    )
    assert half < full - 0.8 * read_bundle(tmp_path / "half").files["unet.safetensors"].bytes


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("gpu", ["sm80", "sm86", "sm89", "sm120"])
def test_the_step_of_sd15s_size_is_built_for_every_gpu(tmp_path_factory, gpu):
    from ip2p_fast.benchmarks.random_model import SD15, save_random_model

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


class StandIn:
    """CUDA's runtime for a GPU that is not there, in the host's memory: what is queued is done at the next wait."""

    def __init__(self, runtime, architecture=(8, 9), room=2**30):
        for name in ("cudaError_t", "cudaDeviceAttr", "cudaMemcpyKind", "cudaStreamCaptureMode"):
            setattr(self, name, getattr(runtime, name))
        self.architecture, self.room = architecture, room
        self.ok = (self.cudaError_t.cudaSuccess,)
        self.memory, self.graphs = {}, {}  # what is held, by address and number
        self.queue, self.captured = [], None
        self.calls = []  # names of what was asked for, in order
        self.device = None

    def __getattr__(self, name):
        """Of what has no result: that it was asked for."""
        if not name.startswith("cuda"):
            raise AttributeError(name)
        return lambda *_: self.calls.append(name) or self.ok

    def put(self, work):
        (self.queue if self.captured is None else self.captured).append(work)

    def array(self, address, shape, dtype):
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_byte * count).from_address(address), dtype).reshape(shape)

    def cudaGetDeviceCount(self):
        return (*self.ok, 2)

    def cudaDeviceGetAttribute(self, kind, index):
        major = kind == self.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor
        return (*self.ok, self.architecture[0 if major else 1])

    def cudaSetDevice(self, index):
        self.device = index
        return self.ok

    def cudaStreamCreate(self):
        return (*self.ok, 7)

    def cudaMalloc(self, size):
        if size > self.room:
            return (self.cudaError_t.cudaErrorMemoryAllocation, None)
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return (*self.ok, ctypes.addressof(buffer))

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address):
        del self.memory[address]
        return self.ok

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        assert stream == 7 and to in self.memory and source in self.memory
        self.calls.append("send" if kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice else "fetch")
        self.put(lambda: ctypes.memmove(to, source, size))
        return self.ok

    def cudaStreamSynchronize(self, stream):
        for work in self.queue:
            work()
        self.queue.clear()
        return self.ok

    def cudaStreamBeginCapture(self, stream, mode):
        self.calls.append("capture")
        self.captured = []
        return self.ok

    def cudaStreamEndCapture(self, stream):
        graph, self.captured = self.captured, None
        return (*self.ok, graph)

    def cudaGraphInstantiate(self, graph, flags):
        self.graphs[id(graph)] = graph
        return (*self.ok, id(graph))

    def cudaGraphExecDestroy(self, graph):
        del self.graphs[graph]
        return self.ok

    def cudaGraphLaunch(self, graph, stream):
        self.calls.append("launch")
        self.queue.extend(self.graphs[graph])
        return self.ok


class StandInEngine:
    """An engine whose arithmetic is ONNX Runtime's, on the same file and in the stand-in's memory."""

    device_memory_size_v2 = 1000

    def __init__(self, cuda, bundle, name):
        self.cuda, self.graph, self.contexts = cuda, bundle.graphs[name], []
        self.session = onnxruntime.InferenceSession(bundle.folder / self.graph.file)

    def create_runtime_config(self):
        return AnyConfig()

    def create_execution_context(self, strategy_or_config):
        self.contexts.append(StandInContext(self))
        return self.contexts[-1]


class StandInContext:
    def __init__(self, engine):
        self.engine, self.shapes, self.at, self.working, self.works = engine, {}, {}, None, True

    def set_device_memory(self, address, size):
        assert address in self.engine.cuda.memory and size >= self.engine.device_memory_size_v2
        self.working = address

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name):
        zeros = {n: np.zeros(self.shapes[n], spec.dtype) for n, spec in self.engine.graph.inputs.items()}
        return self.engine.session.run([name], zeros)[0].shape

    def set_tensor_address(self, name, address):
        self.at[name] = address

    def execute_async_v3(self, stream):
        assert stream == 7 and self.engine.cuda.device == 1
        self.engine.cuda.put(self.compute)
        return self.works

    def compute(self):
        graph, array = self.engine.graph, self.engine.cuda.array
        inputs = {name: array(self.at[name], self.shapes[name], spec.dtype) for name, spec in graph.inputs.items()}
        for name, result in zip(graph.outputs, self.engine.session.run(list(graph.outputs), inputs), strict=True):
            array(self.at[name], result.shape, result.dtype)[...] = result


class AnyConfig:
    def set_execution_context_allocation_strategy(self, strategy):
        assert strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED


@pytest.fixture
def cuda(monkeypatch):
    stand_in = StandIn(cuda_memory.cuda)
    monkeypatch.setattr(cuda_memory, "cuda", stand_in)
    return stand_in


@pytest.fixture
def runner(cuda, tiny_bundle):
    bundle = read_bundle(tiny_bundle)
    engines = {name: StandInEngine(cuda, bundle, name) for name in bundle.graphs}
    return TensorRtRunner(bundle, engines, Limits(2, 8, 16, 24), CudaDevice(1))


def ids(texts=1, value=5):
    return {"ids": np.full((texts, 77), value, np.int64)}


@pytest.mark.parametrize("kind", ["tensorrt", "tensorrt_rtx"])
def test_edits_over_the_stand_in_are_those_of_the_onnx_backend(runner, cuda, monkeypatch, tiny_bundle, pictures, kind):
    monkeypatch.setattr(tensorrt_backend, "KIND", kind)
    bundle, tokenizer = opened(tiny_bundle)
    requests = [
        EditRequest(pictures[0], "make it night", steps=5, seed=1, size=16),
        EditRequest(pictures[3], "add 3 trees", steps=3, seed=2, size=16, image_guidance=1.0, sampler="dpmpp_2m"),
        EditRequest(pictures[1], "dog", steps=4, seed=3, size=24, text_guidance=1.0, image_guidance=1.0),
    ]
    ours = Editor(BundleBackend(bundle, runner), tokenizer).edit_many(requests)
    theirs = Editor.from_pretrained(tiny_bundle, backend="onnx", device="cpu").edit_many(requests)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.latents, other.latents)
        np.testing.assert_array_equal(one.images[0], other.images[0])
    assert ("launch" in cuda.calls) == (kind == "tensorrt")  # TensorRT-RTX captures by itself


def test_an_input_is_sent_again_only_if_it_is_another_array(runner, cuda):
    one, other = ids(), ids()
    for inputs in (one, one, other, one):
        runner.run("text_encoder", inputs)
    assert cuda.calls.count("send") == 3


def test_an_array_is_sent_again_after_a_run_of_other_shapes(runner):
    small, large = ({"latents": np.full((1, 4, side, side), 0.3, np.float32)} for side in (4, 8))
    (before,) = runner.run("vae_decoder", small)
    runner.run("vae_decoder", large)
    small["latents"] *= -1
    (after,) = runner.run("vae_decoder", small)
    assert (before != after).any()


def test_results_do_not_change_with_the_next_call(runner):
    (first,) = runner.run("text_encoder", ids(value=5))
    kept = first.copy()
    (second,) = runner.run("text_encoder", ids(value=6))
    np.testing.assert_array_equal(first, kept)
    assert (first != second).any()


def test_tensorrt_is_captured_in_the_second_run_and_launched_from_then_on(runner, cuda, monkeypatch):
    monkeypatch.setattr(tensorrt_backend, "KIND", "tensorrt")
    results = [runner.run("text_encoder", ids(value=value))[0] for value in (5, 6, 7)]
    assert [call for call in cuda.calls if call in ("capture", "launch")] == ["capture", "launch", "launch"]
    for value, result in zip((5, 6, 7), results, strict=True):
        session = runner._engines["text_encoder"].session
        np.testing.assert_array_equal(session.run(None, ids(value=value))[0], result)


def test_memory_and_graphs_of_shapes_long_unused_are_freed_and_in_the_end_all(runner, cuda, monkeypatch):
    monkeypatch.setattr(tensorrt_backend, "SHAPES_KEPT", 1)
    monkeypatch.setattr(tensorrt_backend, "KIND", "tensorrt")

    def run(side):
        for _ in range(2):
            runner.run("vae_decoder", {"latents": np.zeros((1, 4, side, side), np.float32)})

    run(4)
    held = len(cuda.memory), len(cuda.graphs)
    run(6)
    run(4)
    assert (len(cuda.memory), len(cuda.graphs)) == held == (5, 1)  # working memory, two arrays with their doubles
    runner.__dict__.clear()
    assert not cuda.memory and not cuda.graphs


def test_all_graphs_and_shapes_work_in_the_same_memory(runner):
    runner.run("text_encoder", ids())
    for side in (4, 8):
        runner.run("vae_decoder", {"latents": np.zeros((1, 4, side, side), np.float32)})
    contexts = [context for engine in runner._engines.values() for context in engine.contexts]
    assert len(contexts) == 3 and len({context.working for context in contexts}) == 1


def test_each_run_is_on_the_runners_gpu_whatever_the_thread_had(runner, cuda):
    runner.run("text_encoder", ids())
    cuda.device = 0  # as in a thread that is new
    runner.run("text_encoder", ids())  # the stand-in's engine asserts that it is 1
    assert cuda.device == 1


def test_more_than_the_engine_takes_is_refused_before_memory_is_taken(runner, cuda):
    held = len(cuda.memory)
    with pytest.raises(BadInput, match="text_encoder: N of ids is 2, and its engine takes 1 to 1"):
        runner.run("text_encoder", ids(texts=2))
    assert len(cuda.memory) == held


def test_a_gpu_without_room_is_said_when_the_model_is_loaded(runner, cuda):
    cuda.room = 999
    with pytest.raises(BadInput, match=r"the GPU has no room for \d+ MB more: .*smaller limits"):
        TensorRtRunner(runner._bundle, runner._engines, runner._limits, CudaDevice(1))


def test_an_engine_that_does_not_run_is_an_error(runner):
    runner.run("text_encoder", ids())
    runner._engines["text_encoder"].contexts[0].works = False
    with pytest.raises(RuntimeError, match="could not run an engine"):
        runner.run("text_encoder", ids())


def test_an_error_of_cuda_is_named(runner, cuda, monkeypatch):
    monkeypatch.setattr(cuda, "cudaStreamSynchronize", lambda _: (cuda.cudaError_t.cudaErrorLaunchFailure,))
    with pytest.raises(RuntimeError, match="CUDA: cudaErrorLaunchFailure"):
        runner.run("text_encoder", ids())


def test_tensorrt_builds_for_the_gpu_that_is_there_alone(cuda, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt_engine, "KIND", "tensorrt")
    bundle = read_bundle(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    with pytest.raises(BadInput, match="builds for the GPU that is there, sm89, not for 'sm80'"):
        build_engines(bundle, "sm80", Limits.of(bundle))
    cuda.cudaGetDeviceCount = lambda: (*cuda.ok, 0)
    with pytest.raises(BadInput, match="device 'cuda:0' is not there"):
        build_engines(bundle, "sm89", Limits.of(bundle))


def test_a_library_that_is_absent_names_its_extra(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_libs"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"the tensorrt backend.*ip2p-fast\[tensorrt\]"):
        tensorrt_library._found()


def test_a_library_that_is_there_but_broken_is_not_passed_over(monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text("import its_libraries")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_libraries"):
        tensorrt_library._found()
