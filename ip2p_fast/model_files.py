"""The files a model is made of, read whole or refused by name: JSON, safetensors, pickled tensors, sharded sets."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ModelError

if TYPE_CHECKING:
    import torch


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ModelError: absent, not JSON, or not an object; names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; the model is incomplete") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # malformed JSON or UTF-8
        raise ModelError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is damaged: it holds a {type(content).__name__}, not an object")
    return content


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a .safetensors, .ckpt, .bin or .pt file, or of the shards an index lists, in the file's dtype.

    Tensors are mapped from the file, so that reading costs no copy; the file must stay as it is while they live.

    Raises:
        ModelError: absent, truncated, damaged, or a pickle that holds more than tensors; names the file.
    """
    if path.suffix == ".json":
        return _read_sharded(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; the model is incomplete")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def find_weights(folder: Path, *stems: str) -> Path:
    """The weights of one component: safetensors before pickles, whole before sharded, full precision before fp16.

    Args:
        folder: of one component, as `unet/`.
        stems: names it may go by, as "diffusion_pytorch_model", "model" or "pytorch_model".

    Raises:
        ModelError: the folder holds none of them.
    """
    endings = ("safetensors", "safetensors.index.json", "bin", "bin.index.json")
    # As transformers names them: model.fp16.safetensors, but model.safetensors.index.fp16.json.
    half = ("fp16.safetensors", "safetensors.index.fp16.json", "fp16.bin", "bin.index.fp16.json")
    for ending in (*endings[:2], *half[:2], *endings[2:], *half[2:]):
        for stem in stems:
            if (path := folder / f"{stem}.{ending}").is_file():
                return path
    raise ModelError(f"{folder} holds no weights: expected {' or '.join(f'{stem}.safetensors' for stem in stems)}")


def _read_sharded(index: Path) -> dict[str, torch.Tensor]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ModelError(f"{index} is damaged: it has no weight_map of tensor names to files")
    tensors: dict[str, torch.Tensor] = {}
    for name in sorted(set(shards.values())):
        if Path(name).name != name:
            raise ModelError(f"{index} is refused: it points outside its folder, to {name!r}")
        tensors |= read_tensors(index.parent / name)
    if absent := sorted(shards.keys() - tensors.keys()):
        raise ModelError(f"{index} lists {len(absent)} tensors that its files do not hold, first {absent[0]}")
    return tensors


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{path} is truncated or damaged: {_one_line(error)}") from None


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        # Only the zip form can be mapped; files from before torch 1.6 are read.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "Unsupported" in str(error):
            raise ModelError(
                f"{path} is refused: besides tensors it holds Python objects, which could run code when loaded; "
                "ask for it as .safetensors, or convert it where you trust it"
            ) from None
        raise ModelError(f"{path} is truncated or damaged: {_one_line(error)}") from None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, IndexError) as error:
        raise ModelError(f"{path} is truncated or damaged: {_one_line(error)}") from None
    while isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise ModelError(f"{path} is no model: it holds a {type(content).__name__}, not named tensors")
    return {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
