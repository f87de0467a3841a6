"""A bundle as a model repository of NVIDIA's Triton Inference Server: the whole edit, batched by the server.

REPOSITORY/NAME/config.pbtxt and REPOSITORY/NAME/1/model.onnx, which is edit.onnx beside the weights it points into.
Every input of edit.onnx begins with the batch, so that requests of one size and number of steps are put together
whatever their pictures, texts, scales and noise. tokenizer/ and tables.json come along for the clients.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from ip2p_fast.bundle import TABLES, TOKENIZER, Graph, TensorSpec, read_bundle
from ip2p_fast.errors import BadInput
from ip2p_fast.whole import whole

NAME = "ip2p_edit"
_TYPES = {"uint8": "TYPE_UINT8", "int64": "TYPE_INT64", "float32": "TYPE_FP32"}
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def write_repository(
    model: str | Path, out: str | Path, name: str = NAME, max_batch: int = 8, queue_delay_ms: float = 5.0
) -> Path:
    """Writes a repository of one model, which appears whole or not at all; returns the model's folder.

    Args:
        model: a bundle's folder.
        name: of the model in the server.
        max_batch: the most edits that the server puts together, at least 1.
        queue_delay_ms: how long it may wait for more of them.

    Raises:
        BadInput: what is wrong with an argument, or `out` is there already. ModelError: what is wrong with the bundle.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(f"the model's name is {name!r}: letters, digits, '.', '_' and '-' are allowed")
    if max_batch < 1:
        raise BadInput(f"max_batch is {max_batch}: at least 1 is needed")
    if not 0 <= queue_delay_ms <= 60_000:
        raise BadInput(f"queue_delay_ms is {queue_delay_ms}: 0 to 60000 is allowed")
    bundle = read_bundle(model)
    if bundle.edit is None:
        raise BadInput(f"{model} has no edit.onnx: export the model again with this version")
    out = Path(out).expanduser()
    with whole(out) as folder:
        version = folder / name / "1"
        version.mkdir(parents=True)
        shutil.copy(bundle.folder / bundle.edit.file, version / "model.onnx")
        for file in bundle.edit.weights:
            (version / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(bundle.folder / file, version / file)
        for file in bundle.files:
            if file == TABLES or file.startswith(f"{TOKENIZER}/"):
                (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(bundle.folder / file, folder / name / file)
        config = config_pbtxt(name, bundle.edit, max_batch, queue_delay_ms)
        (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")
    return out / name


def config_pbtxt(name: str, edit: Graph, max_batch: int, queue_delay_ms: float) -> str:
    """The model's configuration, in the text form of Triton's message ModelConfig. Sides leave the batch out."""
    return f"""\
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {max_batch}
{_tensors("input", edit.inputs)}
{_tensors("output", edit.outputs)}
dynamic_batching {{ max_queue_delay_microseconds: {round(1000 * queue_delay_ms)} }}
instance_group [ {{ kind: KIND_AUTO count: 1 }} ]
"""


def _tensors(kind: str, specs: Mapping[str, TensorSpec]) -> str:
    entries = [
        f'  {{ name: "{name}" data_type: {_TYPES[spec.dtype]} dims: [ {", ".join(map(_side, spec.shape[1:]))} ] }}'
        for name, spec in specs.items()
    ]
    return f"{kind} [\n" + ",\n".join(entries) + "\n]"


def _side(side: int | str) -> str:
    return "-1" if isinstance(side, str) else str(side)
