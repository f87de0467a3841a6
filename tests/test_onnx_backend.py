"""The ONNX Runtime backend: its devices and dtypes."""

import numpy as np
import onnxruntime
import pytest

from ip2p_fast import BadInput, Editor, ModelError
from ip2p_fast.backends import onnx_backend
from ip2p_fast.backends.bundle_backend import BundleBackend, opened
from ip2p_fast.backends.onnx_backend import Bound, OnnxRunner, Placement


def test_another_dtype_than_the_bundles_is_refused(tiny_bundle):
    assert Editor.from_pretrained(tiny_bundle, backend="onnx", dtype="float32").backend.dtype == "float32"
    with pytest.raises(ModelError, match="computes in float32, not 'bfloat16': choose auto or float32"):
        Editor.from_pretrained(tiny_bundle, backend="onnx", dtype="bfloat16")


@pytest.mark.parametrize("device", ["tpu9", "mps", "cuda:", "cuda:x", "cpu:1", "tensorrt:", "tensorrt:a", ""])
def test_an_unknown_device_is_refused_before_the_bundle_is_read(tmp_path, device):
    (tmp_path / "bundle.json").write_text("not read")
    with pytest.raises(BadInput, match=f"unknown device '{device}'"):
        Editor.from_pretrained(tmp_path, backend="onnx", device=device)


@pytest.mark.parametrize(
    ("device", "library"), [("cuda", "CUDA"), ("cuda:99", "CUDA"), ("tensorrt", "TensorRT"), ("tensorrt:1", "TensorRT")]
)
def test_a_gpu_that_is_asked_for_is_never_replaced_by_the_cpu(tiny_bundle, monkeypatch, device, library):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BadInput, match=f"device '{device}' is not there.*built without {library}"):
        Editor.from_pretrained(tiny_bundle, backend="onnx", device=device)


class OnlyCpu(onnxruntime.InferenceSession):
    """What ONNX Runtime gives where a GPU was asked for and its libraries are absent."""

    def __init__(self, path, options, providers):
        super().__init__(path, options, providers=["CPUExecutionProvider"])


def test_a_gpu_that_cannot_be_used_is_an_error_if_asked_for_and_else_the_cpu(tiny_bundle, monkeypatch):
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "InferenceSession", OnlyCpu)
    with pytest.raises(BadInput, match="device 'cuda:0' is not there.*cannot use it; choose cpu"):
        Editor.from_pretrained(tiny_bundle, backend="onnx", device="cuda")
    assert Editor.from_pretrained(tiny_bundle, backend="onnx").backend.device == "cpu"


def test_providers_follow_the_one_asked_for_and_engines_are_kept(tiny_bundle):
    bundle, _ = opened(tiny_bundle)
    (tensorrt, options), (cuda, on), cpu = onnx_backend._providers(bundle, Placement("TensorrtExecutionProvider", 2))
    assert (tensorrt, cuda, cpu) == ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["device_id"] == on["device_id"] == 2 and not options["trt_fp16_enable"]
    assert options["trt_engine_cache_path"].startswith(str(tiny_bundle))
    assert len(onnx_backend._providers(bundle, Placement("CUDAExecutionProvider"))) == 2


class BoundOnCpu(OnnxRunner):
    """The path of a GPU, with the CPU's memory as the device's."""

    def __init__(self, bundle):
        super().__init__(bundle)
        self._bound = {name: Bound(session, "cpu", 0) for name, session in self._sessions.items()}


def test_bound_memory_gives_the_same_edits_and_lasting_inputs_are_sent_once(tiny_bundle, pictures, monkeypatch):
    sent, send = [], onnxruntime.OrtValue.ortvalue_from_numpy
    monkeypatch.setattr(
        onnxruntime.OrtValue,
        "ortvalue_from_numpy",
        lambda array, *place: sent.append(array.shape) or send(array, *place),
    )
    bundle, tokenizer = opened(tiny_bundle)
    settings = dict(steps=4, seed=1, size=16)
    plain = Editor(BundleBackend(bundle, OnnxRunner(bundle)), tokenizer).edit(pictures[0], "make it night", **settings)
    assert not sent
    bound = Editor(BundleBackend(bundle, BoundOnCpu(bundle)), tokenizer).edit(pictures[0], "make it night", **settings)
    np.testing.assert_array_equal(bound.latents, plain.latents)
    assert sent.count((2, 77, 32)) == 1  # the texts
    assert sent.count((1, 2, 4, 8, 8)) == 4  # the history, every step
