"""The ONNX Runtime backend: its devices and dtypes."""

import onnxruntime
import pytest

from ip2p_fast import BadInput, Editor, ModelError


def test_another_dtype_than_the_bundles_is_refused(tiny_bundle):
    assert Editor.from_pretrained(tiny_bundle, backend="onnx", dtype="float32").backend.dtype == "float32"
    with pytest.raises(ModelError, match="computes in float32, not 'bfloat16': choose auto or float32"):
        Editor.from_pretrained(tiny_bundle, backend="onnx", dtype="bfloat16")


@pytest.mark.parametrize("device", ["tpu9", "mps", "cuda:", "cuda:x", "cpu:1", ""])
def test_an_unknown_device_is_refused_before_the_bundle_is_read(tmp_path, device):
    (tmp_path / "bundle.json").write_text("not read")
    with pytest.raises(BadInput, match=f"unknown device '{device}'"):
        Editor.from_pretrained(tmp_path, backend="onnx", device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:99"])
def test_a_gpu_that_is_asked_for_is_never_replaced_by_the_cpu(tiny_bundle, monkeypatch, device):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BadInput, match=f"device '{device}' is not there.*built without CUDA"):
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
