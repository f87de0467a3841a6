"""A model becomes a bundle: four ONNX files, the tokenizer's, and the bundle.json that describes and guards them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ip2p_fast import Editor, __version__, checkpoints
from ip2p_fast.backends import ModelInfo, onnx_backend
from ip2p_fast.bundle import DTYPES, MANIFEST, SCHEMA, TOKENIZER, FileFacts, parse, schedule_to_json
from ip2p_fast.checkpoints import Checkpoint
from ip2p_fast.errors import BadInput
from ip2p_fast.samplers import COEFFICIENTS, SAMPLERS
from ip2p_fast.tokenizer import Tokenizer
from ip2p_fast.whole import sha256_of, whole

from .graphs import TracedGraph, traced_graphs
from .onnx_file import EXTERNAL_ABOVE, versions, write_onnx
from .parity import measure


def export_bundle(
    model: str | Path,
    out: str | Path,
    dtype: str = "float32",
    external_above: int = EXTERNAL_ABOVE,
    watch: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Exports a model to the folder `out`, which appears whole or not at all.

    Args:
        model: as `Editor.from_pretrained` takes it.
        dtype: what the graphs compute in, float32 or float16; inputs and outputs stay float32.
        external_above: bytes of weights above which a graph's lie in a file beside it.
        watch: called with what is being done, and how many stages of how many are.
    Returns:
        the content of bundle.json.
    Raises:
        BadInput: `out` exists, or its parent does not; an unknown dtype. ModelError: the model cannot be loaded.
    """
    out = Path(out).expanduser()
    if dtype not in DTYPES:
        raise BadInput(f"unknown dtype {dtype!r}: a bundle computes in one of {', '.join(DTYPES)}")
    if not out.absolute().parent.is_dir():
        raise BadInput(f"cannot export to {out}: there is no folder {out.absolute().parent}; make it first")
    with whole(out) as folder:
        folder.mkdir()
        reference = Editor.from_pretrained(model, "torch", "cpu", "float32")
        checkpoint, info = checkpoints.load(model), reference.backend.info
        name = Path(model).name if Path(model).exists() else str(model)
        content = _described(name, checkpoint, info, dtype)
        graphs = traced_graphs(checkpoint, getattr(torch, dtype), info.vae_scale, info.size_multiple)
        for done, graph in enumerate(graphs):
            watch(f"tracing {graph.name}", done, len(graphs) + 1)
            write_onnx(graph, folder / f"{graph.name}.onnx", external_above)
        _write_tokenizer(checkpoint.tokenizer, folder / TOKENIZER)
        content |= versions(folder / "guided_step.onnx")
        content["graphs"] = {graph.name: _graph_facts(graph) for graph in graphs}
        content["files"] = {
            path.relative_to(folder).as_posix(): asdict(FileFacts(path.stat().st_size, sha256_of(path)))
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        watch("measuring parity", len(graphs), len(graphs) + 1)
        backend = onnx_backend.OnnxBackend(parse(folder, content))
        content["parity"] = measure(Editor(backend, Tokenizer.from_folder(folder / TOKENIZER)), reference)
        (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return content


def _described(name: str, checkpoint: Checkpoint, info: ModelInfo, dtype: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "made_by": f"ip2p-fast {__version__}",
        "model": {"name": name, "sha256": _sha256_of_weights(checkpoint)},
        "dtype": dtype,
        "latent_channels": info.latent_channels,
        "vae_scale": info.vae_scale,
        "scaling_factor": checkpoint.vae.config["scaling_factor"],
        "size_multiple": info.size_multiple,
        "schedule": schedule_to_json(info.schedule),
        "samplers": list(SAMPLERS),
        "coefficients": list(COEFFICIENTS),
        "defaults": dict(info.defaults),
    }


def _sha256_of_weights(checkpoint: Checkpoint) -> str:
    """Over names, dtypes and bytes of all tensors, sorted by name: the same however the files are cut."""
    parts: Mapping[str, Mapping[str, torch.Tensor]] = {
        "unet": checkpoint.unet_state,
        "vae": checkpoint.vae.state_dict(),
        "text_encoder": checkpoint.text_encoder.state_dict(),
    }
    digest = hashlib.sha256()
    for part, tensors in parts.items():
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{part}.{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _graph_facts(graph: TracedGraph) -> dict[str, Any]:
    return {
        "file": f"{graph.name}.onnx",
        "inputs": {name: asdict(spec) for name, spec in graph.inputs.items()},
        "outputs": {name: asdict(spec) for name, spec in graph.outputs.items()},
    }


def _write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes what `Tokenizer.from_folder` reads, the tokens added by textual inversion included.

    The model's own files are not copied: a single file has none, and a pipeline's tokens may be in memory alone.
    """
    folder.mkdir()
    backend = tokenizer.backend
    (folder / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
    config = {
        "bos_token": backend.id_to_token(tokenizer.start_id),
        "eos_token": backend.id_to_token(tokenizer.end_id),
        "pad_token": backend.id_to_token(tokenizer.pad_id),
        "unk_token": backend.model.unk_token,
        "model_max_length": tokenizer.length,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
