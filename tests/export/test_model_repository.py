"""A model repository for NVIDIA's Triton Inference Server; the server itself is not run here."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format

from ip2p_fast.cli import main
from ip2p_fast.errors import BadInput
from ip2p_fast.export.model_repository import write_repository


def published_schema():
    """Triton's own message classes, from its client's package, which wants gRPC where they do not."""
    (package,) = importlib.util.find_spec("tritonclient").submodule_search_locations
    spec = importlib.util.spec_from_file_location("model_config_pb2", Path(package, "grpc", "model_config_pb2.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


model_config_pb2 = published_schema()
NUMPY = {"TYPE_UINT8": "uint8", "TYPE_INT64": "int64", "TYPE_FP32": "float32"}


def parsed(folder: Path):
    """By the published schema: an unknown field or value is an error."""
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


@pytest.fixture(scope="module")
def repository(tiny_bundle, tmp_path_factory):
    return write_repository(tiny_bundle, tmp_path_factory.mktemp("triton") / "models", max_batch=4, queue_delay_ms=2.5)


def test_the_configuration_is_valid_and_batches(repository):
    config = parsed(repository)
    assert (config.name, config.platform, config.max_batch_size) == ("ip2p_edit", "onnxruntime_onnx", 4)
    assert config.name == repository.name
    assert config.dynamic_batching.max_queue_delay_microseconds == 2500
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_AUTO


def test_its_tensors_are_those_of_the_graph_without_the_batch(repository):
    config = parsed(repository)
    session = onnxruntime.InferenceSession(repository / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    types = {"tensor(uint8)": "uint8", "tensor(int64)": "int64", "tensor(float)": "float32"}
    for told, real in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [tensor.name for tensor in told] == [value.name for value in real]
        for tensor, value in zip(told, real, strict=True):
            assert NUMPY[model_config_pb2.DataType.Name(tensor.data_type)] == types[value.type]
            assert value.shape[0] == "B"
            assert list(tensor.dims) == [side if isinstance(side, int) else -1 for side in value.shape[1:]]


def test_requests_of_one_size_can_be_put_together(repository):
    """What the server does: inputs of several requests, one behind the other along the first axis."""
    session = onnxruntime.InferenceSession(repository / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    table = json.loads((repository / "tables.json").read_text())["euler_a"]["4"]
    random = np.random.default_rng(0)

    def request(scale):
        return {
            "pixels": random.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8),
            "ids": random.integers(0, 500, (1, 2, 77)),
            "text_guidance": np.float32([[scale]]),
            "image_guidance": np.float32([[1.5]]),
            "start_scale": np.float32([[table["start_scale"]]]),
            "timesteps": np.float32([table["timesteps"]]),
            "coefficients": np.float32([table["coefficients"]]),
            "noise": random.standard_normal((1, 5, 4, 8, 8), dtype=np.float32),
        }

    requests = [request(scale) for scale in (7.5, 1.5, 3.0)]
    together = session.run(None, {name: np.concatenate([r[name] for r in requests]) for name in requests[0]})[0]
    for batched, alone in zip(together, requests, strict=True):
        assert np.abs(batched.astype(int) - session.run(None, alone)[0][0]).max() <= 1


def test_clients_find_the_tokenizer_beside_it(repository, tiny_bundle):
    ours, theirs = ((folder / "tokenizer" / "tokenizer.json").read_bytes() for folder in (repository, tiny_bundle))
    assert ours == theirs


def test_the_command(tiny_bundle, tmp_path, capsys):
    out = tmp_path / "models"
    arguments = ["--name", "edits", "--max-batch", "2", "--queue-delay-ms", "0"]
    assert main(["export", "model-repository", str(tiny_bundle), "-o", str(out), *arguments]) == 0
    assert capsys.readouterr().out.split() == [str(out / "edits")]
    assert parsed(out / "edits").max_batch_size == 2
    assert main(["export", "model-repository", str(tiny_bundle), "-o", str(out)]) == 2
    assert "models is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"name": ""}, "name is ''"),
        ({"max_batch": 0}, "max_batch is 0: at least 1"),
        ({"queue_delay_ms": -1.0}, "queue_delay_ms is -1.0: 0 to 60000"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tiny_bundle, tmp_path, settings, message):
    with pytest.raises(BadInput, match=message):
        write_repository(tiny_bundle, tmp_path / "models", **settings)
    assert list(tmp_path.iterdir()) == []
