"""The two parts taken as they are from their libraries, AutoencoderKL and CLIPTextModel, from a config and tensors.

The modules are made on the meta device and take the tensors over, so nothing is initialised or copied, and a missing,
extra or misshapen tensor is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from .errors import ModelError

# The VAE's attention before diffusers 0.15; checkpoints of that time are still on the hub.
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def build_vae(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> AutoencoderKL:
    """An AutoencoderKL in eval mode that shares `tensors`. Raises ModelError naming `source` and the fault."""
    if (kind := config.get("_class_name", "AutoencoderKL")) != "AutoencoderKL":
        raise ModelError(f"{source}: a VAE of class {kind} is not supported, only AutoencoderKL")
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    vae = _on_meta(lambda: AutoencoderKL.from_config(settings), source)
    return _take(vae, {_modern(name): tensor for name, tensor in tensors.items()}, source)


def build_text_encoder(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> CLIPTextModel:
    """A CLIPTextModel in eval mode that shares `tensors`. Raises ModelError naming `source` and the fault.

    `tensors` may carry the prefix "text_model." or not: transformers dropped it in 5.6.
    """
    if (kind := config.get("model_type", "clip_text_model")) != "clip_text_model":
        raise ModelError(f"{source}: a text encoder of type {kind} is not supported, only clip_text_model")
    text_config = CLIPTextConfig.from_dict(dict(config))
    text_encoder = _on_meta(lambda: CLIPTextModel(text_config), source)
    prefix = "text_model." if hasattr(text_encoder, "text_model") else ""
    named = {prefix + name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    named = {name: tensor for name, tensor in named.items() if not name.endswith("embeddings.position_ids")}
    embeddings = text_encoder.get_submodule(prefix + "embeddings")
    # Not saved in the file: the one buffer, which the meta device has left without values.
    embeddings.position_ids = torch.arange(text_config.max_position_embeddings)[None]
    return _take(text_encoder, named, source)


def _on_meta(make: Any, source: str) -> Any:
    try:
        with torch.device("meta"):
            return make()
    except Exception as error:  # a damaged config fails anywhere in the library
        raise ModelError(f"{source}: its config cannot be built: {' '.join(str(error).split())[:200]}") from None


def _take(module: Any, tensors: Mapping[str, Tensor], source: str) -> Any:
    expected = dict(module.state_dict())
    for what, names in (("lacks", expected.keys() - tensors.keys()), ("has", tensors.keys() - expected.keys())):
        if names:
            unit = "tensors" if what == "lacks" else "tensors that its config has no place for"
            raise ModelError(f"{source} {what} {len(names)} {unit}: {', '.join(sorted(names)[:3])}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"{source}: {name} has shape {list(tensor.shape)}, its config says {list(expected[name].shape)}"
            )
    module.load_state_dict(
        {name: nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()}, assign=True
    )
    return module.eval()


def _modern(name: str) -> str:
    for old, new in _OLD_ATTENTION.items():
        if ".attentions." in name:
            name = name.replace(old, new)
    return name
