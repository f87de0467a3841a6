"""Models from the Hugging Face hub, in its usual cache; HF_HUB_OFFLINE and its other settings hold."""

from __future__ import annotations

from pathlib import Path

from .errors import MissingExtra, ModelError
from .model_files import find_weights

_CONFIGS = ("model_index.json", "defaults.json", "*/config.json", "scheduler/*.json", "tokenizer/*")
_WEIGHTS = {
    "unet": ("diffusion_pytorch_model",),
    "vae": ("diffusion_pytorch_model",),
    "text_encoder": ("model", "pytorch_model"),
}


def download(repository: str) -> Path:
    """The folder of a model in the cache, fetched first if it is not there.

    Repositories hold the same weights several times over. Whole-precision safetensors are fetched; only for a part that
    has none, whatever else it has.

    Raises:
        ModelError: no such repository, or it cannot be reached and is not in the cache.
    """
    safetensors = [f"{part}/{stem}*.safetensors*" for part, stems in _WEIGHTS.items() for stem in stems]
    folder = _snapshot(repository, [*_CONFIGS, *safetensors], ignore=["*.fp16*", "*.non_ema*"])
    if lacking := [part for part, stems in _WEIGHTS.items() if not _has_weights(folder / part, stems)]:
        folder = _snapshot(repository, [f"{part}/*" for part in lacking], ignore=["*.msgpack", "*.h5", "*.non_ema*"])
    return folder


def download_tokenizer(repository: str) -> Path:
    """The folder of a repository's tokenizer in the cache, fetched first if it is not there. Raises ModelError."""
    folder = _snapshot(repository, ["tokenizer/*"], ignore=[]) / "tokenizer"
    if not folder.is_dir():
        raise ModelError(f"{repository} has no tokenizer, or none in the cache while offline")
    return folder


def _snapshot(repository: str, patterns: list[str], ignore: list[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError as error:
        raise MissingExtra("loading from the hub", "torch") from error
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns, ignore_patterns=ignore))
    except RepositoryNotFoundError:
        raise ModelError(
            f"the hub has no model {repository!r}, or it is private: log in with `hf auth login`"
        ) from None
    except LocalEntryNotFoundError:
        raise ModelError(
            f"{repository} is neither a folder here nor in the hub's cache, and the hub cannot be reached (or "
            "HF_HUB_OFFLINE is set); fetch it once where there is a network, or give a folder"
        ) from None
    except (HFValidationError, OSError, ValueError) as error:
        raise ModelError(f"{repository} cannot be fetched from the hub: {' '.join(str(error).split())[:200]}") from None


def _has_weights(folder: Path, stems: tuple[str, ...]) -> bool:
    try:
        find_weights(folder, *stems)
    except ModelError:
        return False
    return True
