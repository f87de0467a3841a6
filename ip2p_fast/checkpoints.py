"""A model from wherever it lies: the shipped one, a Hugging Face folder, a hub id, a single file, a loaded pipeline.

All become one `Checkpoint`: a UNet in diffusers' names, a VAE, a text encoder, a tokenizer, a noise schedule.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import MissingExtra, ModelError
from .model_files import find_weights, read_json, read_tensors
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers.models.clip.modeling_clip import CLIPTextModel

POCKET = Path(__file__).parent / "pocket"
SHIPPED = {name: POCKET.with_name(name) for name in ("pocket", "pocket-student", "pocket-base")}
"""Models of the package, by name: one that edits, its one-row student, the text-to-image model of the same world."""
EDIT_CHANNELS = 8
"""Input channels of InstructPix2Pix's UNet: 4 of the noisy latents and 4 of the input picture's."""
TEXT_TO_IMAGE_CHANNELS = 4


@dataclass(frozen=True)
class Checkpoint:
    """A model in memory, in the dtype of its file.

    name              what it was asked for by
    path              the folder or file it came from; None if it came from a pipeline in memory
    unet_config       as unet/config.json
    unet_state        diffusers' parameter names -> tensors, mapped from the file
    vae, text_encoder in eval mode
    scheduler_config  as scheduler/scheduler_config.json
    defaults          the model's own settings of an edit, from its defaults.json; {} for most
    """

    name: str
    path: Path | None
    unet_config: dict[str, Any]
    unet_state: dict[str, torch.Tensor]
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: Tokenizer
    scheduler_config: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)


def load(
    model: str | Path = "pocket", *, tokenizer: str | Path | None = None, in_channels: int = EDIT_CHANNELS
) -> Checkpoint:
    """Load a shipped model, a Hugging Face folder, a hub id, or a single .safetensors or .ckpt of the original.

    Args:
        tokenizer: for a single file, which has none: a folder or hub id that has; by default a folder `tokenizer`
            beside the file, else the one its family uses, from the hub.
        in_channels: what the UNet must take: 8 for an edit model, 4 for the text-to-image model it grew from.

    Raises:
        ModelError: in one line, what is absent, damaged or of another architecture.
        MissingExtra: PyTorch, diffusers or transformers are not installed.
    """
    path = _locate(model)
    try:
        if path.is_dir():
            checkpoint = _from_folder(str(model), path, in_channels)
        else:
            from . import single_file

            checkpoint = Checkpoint(str(model), path, **single_file.read(path, tokenizer, in_channels))
    except ModuleNotFoundError as error:
        if error.name in ("torch", "diffusers", "transformers", "safetensors"):
            raise MissingExtra(f"loading {model}", "torch") from error
        raise
    require_agreement(checkpoint)
    return checkpoint


def from_pipeline(pipe: Any) -> Checkpoint:
    """From a loaded StableDiffusionInstructPix2PixPipeline, which stays as it is; unchanged tensors are shared with it.

    Active LoRA layers are merged into the weights; tokens added by textual inversion are kept.

    Raises:
        ModelError: the pipeline is of another kind.
    """
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        if getattr(pipe, part, None) is None:
            raise ModelError(f"a {type(pipe).__name__} without {part} cannot be taken over")
    require_edit_model(pipe.unet.config)
    from .components import build_text_encoder, build_vae

    name = str(getattr(pipe, "name_or_path", "") or type(pipe).__name__)
    text_config = pipe.text_encoder.config.to_dict()
    text_config["vocab_size"] = pipe.text_encoder.get_input_embeddings().weight.shape[0]
    checkpoint = Checkpoint(
        name=name,
        path=Path(name) if Path(name).is_dir() else None,
        unet_config=dict(pipe.unet.config),
        unet_state=merged_state(pipe.unet),
        vae=build_vae(dict(pipe.vae.config), merged_state(pipe.vae), f"{name}: vae"),
        text_encoder=build_text_encoder(text_config, merged_state(pipe.text_encoder), f"{name}: text_encoder"),
        tokenizer=Tokenizer.from_transformers(pipe.tokenizer),
        scheduler_config=dict(pipe.scheduler.config),
    )
    require_agreement(checkpoint)
    return checkpoint


def require_edit_model(unet_config: Mapping[str, Any], in_channels: int = EDIT_CHANNELS) -> None:
    """Raise ModelError, with the reason, unless the UNet takes `in_channels`."""
    actual = unet_config.get("in_channels")
    if actual == in_channels:
        return
    kinds = {4: "a text-to-image model", 8: "an InstructPix2Pix model", 9: "an inpainting model"}
    kind = kinds.get(actual, "another kind of model") if isinstance(actual, int) else "another kind of model"
    raise ModelError(
        f"this is {kind}: its UNet takes {actual} input channels, but {kinds.get(in_channels, 'this use')} needs "
        f"{in_channels}" + ("; give an InstructPix2Pix checkpoint" if in_channels == EDIT_CHANNELS else "")
    )


def merged_state(module: Any) -> dict[str, torch.Tensor]:
    """The state dict of a module, with the LoRA layers that PEFT put into it merged and gone from the names."""
    state = dict(module.state_dict())
    for name, layer in module.named_modules():
        if not hasattr(layer, "base_layer") or not hasattr(layer, "merge"):
            continue
        for key in [key for key in state if key.startswith(f"{name}.")]:
            del state[key]
        if not layer.disable_adapters and not layer.merged:
            layer = copy.deepcopy(layer)  # merging works in place, and the caller's layer is not ours
            layer.merge()
        for key, tensor in layer.get_base_layer().state_dict().items():
            state[f"{name}.{key}"] = tensor
    return {name: tensor.detach() for name, tensor in state.items()}


def _locate(model: str | Path) -> Path:
    if (shipped := SHIPPED.get(str(model))) is not None:
        if not (shipped / "unet").is_dir():
            raise ModelError(f"the weights of {model} are not in this installation ({shipped}); give another model")
        return shipped
    path = Path(model).expanduser()
    if path.exists():
        return path
    looks_like_file = path.suffix in (".safetensors", ".ckpt", ".bin", ".pt")
    if isinstance(model, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model) and not looks_like_file:
        from .hub import download

        return download(model)
    raise ModelError(
        f"unknown model {str(model)!r}: it is neither 'pocket', nor a file or folder, nor a hub id owner/name"
    )


def _from_folder(name: str, folder: Path, in_channels: int) -> Checkpoint:
    if not (folder / "unet").is_dir():
        raise ModelError(f"{folder} is no model in Hugging Face layout: it has no folder unet")
    unet_config = read_json(folder / "unet" / "config.json")
    require_edit_model(unet_config, in_channels)
    # What is cheap to find wrong is read first.
    scheduler_config = read_json(folder / "scheduler" / "scheduler_config.json")
    vae_config = read_json(folder / "vae" / "config.json")
    text_config = read_json(folder / "text_encoder" / "config.json")
    defaults = read_json(folder / "defaults.json") if (folder / "defaults.json").exists() else {}
    tokenizer = Tokenizer.from_folder(folder / "tokenizer")
    vae_file = find_weights(folder / "vae", "diffusion_pytorch_model")
    text_file = find_weights(folder / "text_encoder", "model", "pytorch_model")
    unet_state = read_tensors(find_weights(folder / "unet", "diffusion_pytorch_model"))

    from .components import build_text_encoder, build_vae

    return Checkpoint(
        name=name,
        path=folder,
        unet_config=unet_config,
        unet_state=unet_state,
        vae=build_vae(vae_config, read_tensors(vae_file), str(vae_file)),
        text_encoder=build_text_encoder(text_config, read_tensors(text_file), str(text_file)),
        tokenizer=tokenizer,
        scheduler_config=scheduler_config,
        defaults=defaults,
    )


def require_agreement(checkpoint: Checkpoint) -> None:
    """Raise ModelError if the parts are of different models: they load, and would fail deep inside an edit."""
    text = checkpoint.text_encoder.config
    if checkpoint.tokenizer.size > text.vocab_size:
        raise ModelError(
            f"{checkpoint.name}: the tokenizer has {checkpoint.tokenizer.size} tokens, "
            f"its text encoder only {text.vocab_size}"
        )
    if checkpoint.tokenizer.length > text.max_position_embeddings:
        raise ModelError(
            f"{checkpoint.name}: the tokenizer makes {checkpoint.tokenizer.length} tokens, "
            f"its text encoder takes {text.max_position_embeddings}"
        )
    if checkpoint.unet_config.get("cross_attention_dim") != text.hidden_size:
        raise ModelError(
            f"{checkpoint.name}: the UNet takes text of width {checkpoint.unet_config.get('cross_attention_dim')}, "
            f"its text encoder gives {text.hidden_size}"
        )
