"""A model becomes a bundle: ONNX graphs, the weights they share, the tokenizer, and the bundle.json that guards all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from ip2p_fast import Editor, __version__, checkpoints
from ip2p_fast.backends import ModelInfo
from ip2p_fast.backends.bundle_backend import BundleBackend
from ip2p_fast.backends.onnx_backend import OnnxRunner
from ip2p_fast.bundle import (
    DTYPES,
    EDIT,
    MANIFEST,
    SCHEMA,
    TABLES,
    TOKENIZER,
    FileFacts,
    Graph,
    parse,
    schedule_to_json,
)
from ip2p_fast.checkpoints import Checkpoint
from ip2p_fast.errors import BadInput
from ip2p_fast.samplers import COEFFICIENTS, SAMPLERS, NoiseSchedule, sampler_table
from ip2p_fast.tokenizer import Tokenizer
from ip2p_fast.whole import sha256_of, whole

from .graphs import traced_graphs
from .onnx_file import check, versions, write_onnx
from .parity import Observed, compare, observe
from .stored_weights import StoredWeights
from .whole_edit import write_whole_edit

if TYPE_CHECKING:
    from .quantize import SampleEdit

TABLE_STEPS = (4, 8, 20, 50)
"""Numbers of steps whose sampler tables a bundle brings along, for programs that do not compute their own."""
Watch = Callable[[str, int, int], None]
_STAGES = 7
# a GEGLU's projection, whose halves the graphs read apart
_HALVES = ("ff.net.0.proj.weight", "ff.net.0.proj.bias")


def export_bundle(
    model: str | Path,
    out: str | Path,
    dtype: str = "float32",
    watch: Watch = lambda stage, done, total: None,
    int8: bool = False,
    calibration: Path | None = None,
    int8_weights: bool = False,
) -> dict[str, Any]:
    """Exports a model to the folder `out`, which appears whole or not at all.

    Args:
        model: as `Editor.from_pretrained` takes it.
        dtype: what the graphs compute in, float32 or float16; inputs and outputs stay float32. Weights are kept as the
            model has them, in float16 for float16.
        watch: called with what is being done, and how many stages of how many are.
        int8: also make the guided step in int8, for OpenVINO.
        calibration: the folder of the edits int8 is calibrated on (`quantize.read_samples`), or the model's own.
        int8_weights: int8 of weights alone; activations are not quantized.
    Returns:
        the content of bundle.json.
    Raises:
        BadInput: `out` exists, or its parent does not; an unknown dtype; no edits to calibrate on.
        ModelError: the model cannot be loaded. MissingExtra: int8 needs packages that are not there.
    """
    out = Path(out).expanduser()
    _require_dtype(dtype)
    if not out.absolute().parent.is_dir():
        raise BadInput(f"cannot export to {out}: there is no folder {out.absolute().parent}; make it first")
    samples = _samples(model, calibration) if int8 or int8_weights or calibration else []
    with whole(out) as folder:
        folder.mkdir()
        stages = _Stages(watch, _STAGES + bool(samples))
        reference, info = _observed(model, stages)
        checkpoint = checkpoints.load(model)
        stages("writing weights")
        files = _write_weights(checkpoint, folder, torch.float16 if dtype == "float16" else None)
        _write_tokenizer(checkpoint.tokenizer, folder / TOKENIZER)
        name = Path(model).name if Path(model).exists() else str(model)
        content = _write_graphs(checkpoint, info, name, folder, files, dtype, stages)
        content["parity"] = _parity(folder, content, reference, stages)
        if samples:
            _add_int8(folder, content, samples, int8_weights, stages)
        _write_json(folder / MANIFEST, content)
    return content


def export_in_place(
    folder: str | Path, dtype: str = "float32", watch: Watch = lambda stage, done, total: None
) -> dict[str, Any]:
    """Adds graphs and a bundle.json to a model's own folder in Hugging Face layout; they point into its safetensors.

    Arguments, returns and errors as `export_bundle`; a bundle that is there already is replaced.
    """
    folder = Path(folder).expanduser()
    _require_dtype(dtype)
    if not (folder / TOKENIZER / "tokenizer.json").is_file():
        raise BadInput(f"{folder} has no {TOKENIZER}/tokenizer.json to export beside: export to a new folder with -o")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"{folder} cannot be written: export to a new folder with -o")
    (folder / MANIFEST).unlink(missing_ok=True)  # no bundle until all of it is there
    stages = _Stages(watch, _STAGES - 1)
    reference, info = _observed(folder, stages)
    checkpoint = checkpoints.load(folder)
    parts = ("unet", "vae", "text_encoder")
    files = [path.relative_to(folder).as_posix() for part in parts for path in (folder / part).glob("*.safetensors")]
    content = _write_graphs(checkpoint, info, folder.name, folder, sorted(files), dtype, stages)
    content["parity"] = _parity(folder, content, reference, stages)
    _write_json(folder / MANIFEST, content)
    return content


class _Stages:
    """Counts the stages of an export for who watches it."""

    def __init__(self, watch: Watch, total: int) -> None:
        self.watch, self.done, self.total = watch, 0, total

    def __call__(self, stage: str) -> None:
        self.watch(stage, self.done, self.total)
        self.done += 1


def _require_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise BadInput(f"unknown dtype {dtype!r}: a bundle computes in one of {', '.join(DTYPES)}")


def _observed(model: str | Path, stages: _Stages) -> tuple[Observed, ModelInfo]:
    """What PyTorch makes of the model in float32. Its editor is gone when this returns: a large model is there once."""
    stages("running PyTorch")
    reference = Editor.from_pretrained(model, "torch", "cpu", "float32")
    return observe(reference), reference.backend.info


def _samples(model: str | Path, calibration: Path | None) -> list[SampleEdit]:
    from .quantize import SAMPLES, read_samples

    return read_samples(calibration or Path(checkpoints.SHIPPED.get(str(model), model)).expanduser() / SAMPLES)


def _add_int8(
    folder: Path, content: dict[str, Any], samples: Sequence[SampleEdit], weights_only: bool, stages: _Stages
) -> None:
    from .quantize import write_int8

    stages("quantizing")
    content["int8"] = write_int8(parse(folder, content), samples, weights_only)
    for file in (content["int8"]["file"], *content["int8"]["weights"]):
        content["files"][file] = _file_facts(folder / file)


def _parity(folder: Path, content: Mapping[str, Any], reference: Observed, stages: _Stages) -> dict[str, Any]:
    stages("measuring parity")
    bundle = parse(folder, content)
    editor = Editor(BundleBackend(bundle, OnnxRunner(bundle)), Tokenizer.from_folder(folder / TOKENIZER))
    return compare(observe(editor), reference)


def _write_graphs(
    checkpoint: Checkpoint,
    info: ModelInfo,
    name: str,
    folder: Path,
    weights: Sequence[str],
    dtype: str,
    stages: _Stages,
) -> dict[str, Any]:
    """Writes the graphs and the tables; returns what bundle.json says of them and of all files they need."""
    content = _described(name, checkpoint, info, dtype)
    stored = StoredWeights(folder, weights, halves=_HALVES)
    graphs: dict[str, Graph] = {}
    for graph in traced_graphs(checkpoint, getattr(torch, dtype), info.vae_scale, info.size_multiple):
        stages(f"tracing {graph.name}")
        path = folder / f"{graph.name}.onnx"
        read = write_onnx(graph, path, stored)
        graphs[graph.name] = Graph(path.name, read, graph.inputs, graph.outputs)
    edit = graphs[EDIT] = write_whole_edit(folder, graphs)
    check(EDIT, folder / edit.file, edit.inputs, edit.outputs)
    _write_json(folder / TABLES, _tables(info.schedule))
    content |= versions(folder / graphs["guided_step"].file)
    content["graphs"] = {graph: asdict(facts) for graph, facts in graphs.items()}
    tokenizer = sorted(path.relative_to(folder).as_posix() for path in (folder / TOKENIZER).iterdir())
    files = [*(graph.file for graph in graphs.values()), *edit.weights, TABLES, *tokenizer]
    content["files"] = {file: _file_facts(folder / file) for file in sorted(files)}
    return content


def _file_facts(path: Path) -> dict[str, Any]:
    return asdict(FileFacts(path.stat().st_size, sha256_of(path)))


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
        "distilled": info.distilled,
        "schedule": schedule_to_json(info.schedule),
        "samplers": list(SAMPLERS),
        "coefficients": list(COEFFICIENTS),
        "defaults": dict(info.defaults),
    }


def _tables(schedule: NoiseSchedule) -> dict[str, Any]:
    """{sampler: {steps: {"start_scale", "timesteps" [S], "coefficients" [S, 7]}}}"""
    return {
        sampler: {
            str(steps): {
                "start_scale": table.start_scale,
                "timesteps": table.timesteps.tolist(),
                "coefficients": table.coefficients.tolist(),
            }
            for steps in TABLE_STEPS
            if steps <= schedule.length
            for table in [sampler_table(sampler, steps, schedule)]
        }
        for sampler in SAMPLERS
    }


def _sha256_of_weights(checkpoint: Checkpoint) -> str:
    """Over names, dtypes and bytes of all tensors, sorted by name: the same however the files are cut."""
    digest = hashlib.sha256()
    for part, tensors in _parts(checkpoint).items():
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{part}.{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _parts(checkpoint: Checkpoint) -> dict[str, Mapping[str, torch.Tensor]]:
    return {
        "unet": checkpoint.unet_state,
        "vae": checkpoint.vae.state_dict(),
        "text_encoder": checkpoint.text_encoder.state_dict(),
    }


def _write_weights(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype | None) -> list[str]:
    """The weights of each network to a file, in their own dtype or in `dtype`; returns the files' names."""
    files = []
    for part, tensors in _parts(checkpoint).items():
        files.append(f"{part}.safetensors")
        laid = {
            name: (tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor).contiguous()
            for name, tensor in tensors.items()
        }
        save_file(laid, folder / files[-1])
        (folder / files[-1]).chmod(0o644)  # safetensors leaves it to its owner alone
    return files


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    indent = 1 if path.name == MANIFEST else None
    path.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


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
