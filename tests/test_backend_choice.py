"""Which backend runs a model: the one asked for and no other, or what was measured fastest of those installed."""

import shutil
import sys

import pytest

from ip2p_fast import BadInput, Editor, ModelError
from ip2p_fast.backends import choice
from ip2p_fast.checkpoints import POCKET
from ip2p_fast.errors import MissingExtra


@pytest.fixture
def machine(monkeypatch):
    """A machine with these packages and GPUs."""

    def have(*packages, gpus=0):
        monkeypatch.setattr(choice, "find_spec", lambda name: name if name in packages else None)
        monkeypatch.setattr(choice, "cuda_devices", lambda: gpus)

    return have


@pytest.mark.parametrize(
    ("packages", "gpus", "device", "dtype", "has_weights", "expected"),
    [
        (("openvino", "torch", "onnxruntime"), 0, "auto", "auto", True, "openvino"),
        (("openvino", "torch", "onnxruntime"), 0, "cpu", "bfloat16", False, "openvino"),
        (("openvino", "torch", "onnxruntime"), 0, "auto", "float16", True, "torch"),
        (("torch", "onnxruntime"), 0, "auto", "auto", True, "torch"),
        (("torch", "onnxruntime"), 0, "auto", "auto", False, "onnx"),  # no weights that PyTorch could read
        (("onnxruntime",), 0, "auto", "auto", True, "onnx"),
        (("openvino", "torch"), 1, "auto", "auto", True, "torch"),
        (("openvino", "torch"), 1, "cpu", "auto", True, "openvino"),
        (("openvino", "onnxruntime"), 1, "auto", "auto", True, "onnx"),
        (("openvino",), 1, "auto", "auto", True, "openvino"),  # nothing that could use the GPU is installed
        (("openvino", "torch"), 0, "cuda:1", "auto", True, "torch"),  # which then says that there is no GPU
        (("openvino", "torch"), 0, "cuda", "auto", False, "onnx"),
    ],
)
def test_auto_is_the_fastest_of_those_installed(machine, packages, gpus, device, dtype, has_weights, expected):
    machine(*packages, gpus=gpus)
    assert choice.fastest(device, dtype, has_weights) == expected


def test_the_pocket_model_edits_by_its_graphs_on_a_cpu():
    assert Editor.from_pretrained("pocket", device="cpu").backend.name == "openvino"
    assert Editor.from_pretrained(POCKET, device="cpu").backend.name == "openvino"


@pytest.mark.parametrize("backend", ["torch", "onnx", "openvino"])
def test_a_model_folder_with_graphs_is_run_by_the_backend_asked_for(backend):
    assert Editor.from_pretrained("pocket", backend=backend, device="cpu").backend.name == backend


def test_auto_is_torch_for_a_model_without_graphs(tiny_model):
    assert Editor.from_pretrained(tiny_model, device="cpu").backend.name == "torch"


def test_a_model_of_the_other_kind_is_refused_with_the_way_out(tiny_bundle, tiny_model):
    with pytest.raises(ModelError, match="exported bundle, which the torch backend cannot run: choose another or auto"):
        Editor.from_pretrained(tiny_bundle, backend="torch")
    for backend in ("onnx", "openvino"):
        for model in (tiny_model, "pocket-base", tiny_model / "nothing"):
            with pytest.raises(ModelError, match="no exported bundle.*choose backend auto or torch.*ip2p-fast export"):
                Editor.from_pretrained(model, backend=backend)


@pytest.mark.parametrize(("backend", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_an_explicit_backend_that_is_not_installed_names_its_extra(tiny_bundle, monkeypatch, backend, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"ip2p_fast.backends.{backend}_backend", raising=False)
    with pytest.raises(MissingExtra, match=rf"the {backend} backend.*ip2p-fast\[{backend}\]"):
        Editor.from_pretrained(tiny_bundle, backend=backend)


def test_an_unknown_backend_is_refused(tiny_bundle):
    with pytest.raises(
        BadInput, match="unknown backend 'abacus': choose auto or one of torch, onnx, openvino, tensorrt"
    ):
        Editor.from_pretrained(tiny_bundle, backend="abacus")


def test_no_driver_is_no_gpu(monkeypatch):
    def absent(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(choice.ctypes, "CDLL", absent)
    assert choice.cuda_devices() == 0


def test_a_damaged_graph_of_a_model_folder_is_no_reason_to_run_something_else(tmp_path):
    folder = shutil.copytree(POCKET, tmp_path / "pocket")
    (folder / "guided_step.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match="guided_step.onnx has 0 bytes"):
        Editor.from_pretrained(folder, device="cpu")
