"""The OpenVINO backend: its devices and dtypes, and the shapes it compiles for."""

import shutil

import numpy as np
import openvino
import pytest

from ip2p_fast import BadInput, Editor, ModelError
from ip2p_fast.backends import openvino_backend
from ip2p_fast.backends.bundle_backend import BundleBackend, opened
from ip2p_fast.backends.openvino_backend import OpenVinoRunner


def edit(editor, picture, **settings):
    return editor.edit(picture, "make it night", **dict(steps=4, seed=1, size=max(picture.size), **settings))


def test_bfloat16_is_taken_where_the_processor_has_it(tiny_bundle):
    native = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    dtype = Editor.from_pretrained(tiny_bundle, backend="openvino").backend.dtype
    assert dtype == ("bfloat16" if native else "float32")


def test_bfloat16_is_near_float32(tiny_bundle, pictures):
    half, full = (
        edit(Editor.from_pretrained(tiny_bundle, backend="openvino", dtype=dtype), pictures[0], text_guidance=3.0)
        for dtype in ("bfloat16", "float32")
    )
    assert np.linalg.norm(half.latents - full.latents) <= 0.05 * np.linalg.norm(full.latents)


@pytest.mark.parametrize("dtype", ["float16", "int8", "bf16"])
def test_another_dtype_is_refused(tiny_bundle, dtype):
    with pytest.raises(ModelError, match=f"computes in float32 or bfloat16, not '{dtype}'"):
        Editor.from_pretrained(tiny_bundle, backend="openvino", dtype=dtype)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "tpu", ""])
def test_an_unknown_device_is_refused_before_the_bundle_is_read(tmp_path, device):
    (tmp_path / "bundle.json").write_text("not read")
    with pytest.raises(BadInput, match=f"unknown device '{device}': the openvino backend runs on auto, cpu or gpu"):
        Editor.from_pretrained(tmp_path, backend="openvino", device=device)


def test_a_gpu_that_is_not_there_is_an_error(tiny_bundle):
    if any(name.startswith("GPU") for name in openvino.Core().available_devices):
        pytest.skip("OpenVINO finds a GPU here")
    with pytest.raises(BadInput, match=r"device 'gpu' is not there: OpenVINO \S+ finds CPU"):
        Editor.from_pretrained(tiny_bundle, backend="openvino", device="gpu")


def test_a_graph_is_compiled_once_for_a_shape_and_for_any_shape_when_there_are_many(tiny_bundle, pictures, monkeypatch):
    bundle, tokenizer = opened(tiny_bundle)
    one_graph = bundle.files["unet.safetensors"].bytes + bundle.files["guided_step.onnx"].bytes
    monkeypatch.setattr(openvino_backend, "FIXED_BYTES", 2 * one_graph)
    runner = OpenVinoRunner(bundle, openvino.Core(), "CPU", "float32")
    editor = Editor(BundleBackend(bundle, runner), tokenizer)

    def compiled():
        return [shapes is not None for graph, shapes in runner._requests if graph == "guided_step"]

    edit(editor, pictures[0])
    edit(editor, pictures[3])
    assert compiled() == [True]
    edit(editor, pictures[1])
    assert compiled() == [True, True]
    fresh = Editor.from_pretrained(tiny_bundle, backend="openvino", dtype="float32")
    for picture, scale in ((pictures[2], 1.5), (pictures[2], 1.0), (pictures[0], 1.0)):
        same = [edit(one, picture, image_guidance=scale).latents for one in (editor, fresh)]
        np.testing.assert_allclose(*same, rtol=1e-3, atol=1e-3)
    assert compiled() == [True, True, False]


def test_a_graph_that_openvino_cannot_read_is_named(tiny_bundle, tmp_path):
    bundle, _ = opened(tiny_bundle)
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (folder / "vae_decoder.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="vae_decoder.onnx cannot be loaded"):
        OpenVinoRunner(type(bundle)(**vars(bundle) | {"folder": folder}), openvino.Core(), "CPU", "float32")
