"""A single file in the names of the original (CompVis, Stability), as the paper's own instruct-pix2pix-00-22000.ckpt.

It holds no configuration: all of it is read off the tensors' shapes, so other sizes of the family load too. diffusers'
converters rename the tensors.

    model.diffusion_model.*           UNet
    model_ema.*                       its moving average, preferred: it is what the paper samples from
    first_stage_model.*               VAE
    cond_stage_model.transformer.*    text encoder, transformers' CLIP (Stable Diffusion 1)
    cond_stage_model.model.*          text encoder, OpenCLIP (Stable Diffusion 2)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from .components import build_text_encoder, build_vae
from .errors import ModelError
from .hub import download_tokenizer
from .model_files import read_tensors
from .tokenizer import Tokenizer

_UNET = "model.diffusion_model."
_VAE = "first_stage_model."
_CLIP = "cond_stage_model.transformer."
_OPEN_CLIP = "cond_stage_model.model."

# Repositories whose tokenizer the two families use.
_TOKENIZERS = {_CLIP: "timbrooks/instruct-pix2pix", _OPEN_CLIP: "stabilityai/stable-diffusion-2"}
# Channels of an attention head where their number, not that of the heads, is fixed.
_HEAD_DIM = 64


def read(path: Path, tokenizer: str | Path | None, in_channels: int) -> dict[str, Any]:
    """The fields of a Checkpoint, but for its name and path.

    Raises:
        ModelError: damaged, another architecture, parts missing, or no tokenizer to be had.
    """
    from .checkpoints import require_edit_model

    if path.suffix not in (".safetensors", ".ckpt", ".pt", ".bin"):
        raise ModelError(f"{path} is no model: a single file ends in .safetensors or .ckpt")
    tensors = read_tensors(path)
    for what, prefixes in (("UNet", (_UNET,)), ("VAE", (_VAE,)), ("text encoder", (_CLIP, _OPEN_CLIP))):
        if not any(name.startswith(prefixes) for name in tensors):
            raise ModelError(f"{path} is no whole model: it holds no {what} ({' or '.join(prefixes)}*)")
    text_prefix = _CLIP if any(name.startswith(_CLIP) for name in tensors) else _OPEN_CLIP
    try:
        unet_config = _unet_config(_part(tensors, _UNET))
        vae_config = _vae_config(_part(tensors, _VAE))
        text_config = _clip_config(tensors) if text_prefix == _CLIP else _open_clip_config(tensors)
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(f"{path} is of another architecture: it lacks {error}") from None
    require_edit_model(unet_config, in_channels)
    # Last of what can fail cheaply, as it may go to the network.
    tokens = Tokenizer.from_folder(_tokenizer_folder(path, tokenizer, _TOKENIZERS[text_prefix]))

    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    return {
        "unet_config": unet_config,
        "unet_state": _unet_state(path, tensors, unet_config),
        "vae": build_vae(vae_config, convert_ldm_vae_checkpoint(tensors, vae_config), f"{path}: VAE"),
        "text_encoder": build_text_encoder(text_config, _text_state(tensors, text_config), f"{path}: text encoder"),
        "tokenizer": tokens,
        "scheduler_config": {
            "num_train_timesteps": 1000,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "steps_offset": 1,
            "set_alpha_to_one": False,
            # Shapes do not tell; files of models that predict velocity carry this empty tensor as a mark.
            "prediction_type": "v_prediction" if "v_pred" in tensors else "epsilon",
        },
    }


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _unet_state(path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    original = _averaged(path, tensors)
    converted = convert_ldm_unet_checkpoint(original, config)
    # The converter passes tensors through as they are, and drops in silence those it has no name for.
    kept = {id(tensor) for tensor in converted.values()}
    if dropped := [name for name, tensor in original.items() if id(tensor) not in kept]:
        raise ModelError(
            f"{path} has {len(dropped)} tensors that no Stable Diffusion UNet has: {', '.join(dropped[:3])}"
        )
    return converted


def _averaged(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The UNet's tensors, from the moving average if the file has one. It is saved under names without their dots."""
    names = [name for name in tensors if name.startswith(_UNET)]
    average = {name: "model_ema." + name.removeprefix("model.").replace(".", "") for name in names}
    present = [name for name in names if average[name] in tensors]
    if present and len(present) < len(names):
        absent = next(name for name in names if average[name] not in tensors)
        raise ModelError(f"{path}: its moving average (model_ema.*) lacks {absent}")
    return {name: tensors[average[name] if present else name] for name in names}


def _unet_config(unet: Mapping[str, Tensor]) -> dict[str, Any]:
    """unet/config.json, read off the shapes. Blocks of one level follow each other, a level ends in a downsampler."""
    levels: list[list[tuple[int, bool]]] = [[]]  # of (channels, has a transformer)
    for block in range(1, _count(unet, r"input_blocks\.(\d+)\.")):
        if f"input_blocks.{block}.0.op.weight" in unet:
            levels.append([])
            continue
        width = unet[f"input_blocks.{block}.0.out_layers.3.weight"].shape[0]
        levels[-1].append((width, f"input_blocks.{block}.1.proj_in.weight" in unet))
    channels = [level[0][0] for level in levels]
    attention = [level[0][1] for level in levels]
    linear = unet["middle_block.1.proj_in.weight"].ndim == 2  # else a 1x1 convolution
    return {
        "in_channels": unet["input_blocks.0.0.weight"].shape[1],
        "out_channels": unet["out.2.weight"].shape[0],
        "block_out_channels": channels,
        "layers_per_block": len(levels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention],
        "up_block_types": ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)],
        "cross_attention_dim": unet["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "transformer_layers_per_block": _count(unet, r"middle_block\.1\.transformer_blocks\.(\d+)\."),
        # Version 1: eight heads everywhere; version 2: as many as make them 64 wide. diffusers' name means heads here.
        "attention_head_dim": [max(1, width // _HEAD_DIM) for width in channels] if linear else 8,
        "use_linear_projection": linear,
        "class_embed_type": None,
        "addition_embed_type": None,
        "sample_size": 64,
    }


def _vae_config(vae: Mapping[str, Tensor]) -> dict[str, Any]:
    levels = _count(vae, r"encoder\.down\.(\d+)\.")
    return {
        "in_channels": vae["encoder.conv_in.weight"].shape[1],
        "out_channels": vae["decoder.conv_out.weight"].shape[0],
        "latent_channels": vae["decoder.conv_in.weight"].shape[1],
        "block_out_channels": [vae[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)],
        "layers_per_block": _count(vae, r"encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": 0.18215,
    }


def _clip_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """OpenAI's CLIP (Stable Diffusion 1): all its layers, quick GELU."""
    text = {name.removeprefix("text_model."): tensor for name, tensor in _part(tensors, _CLIP).items()}
    return _text_config(
        text["embeddings.token_embedding.weight"],
        text["embeddings.position_embedding.weight"],
        mlp=text["encoder.layers.0.mlp.fc1.weight"],
        layers=_count(text, r"encoder\.layers\.(\d+)\."),
        activation="quick_gelu",
    )


def _open_clip_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """OpenCLIP (Stable Diffusion 2): the text is taken before the last layer, which is therefore left out."""
    text = _part(tensors, _OPEN_CLIP)
    return _text_config(
        text["token_embedding.weight"],
        text["positional_embedding"],
        mlp=text["transformer.resblocks.0.mlp.c_fc.weight"],
        layers=_count(text, r"transformer\.resblocks\.(\d+)\.") - 1,
        activation="gelu",
    )


def _text_config(tokens: Tensor, positions: Tensor, mlp: Tensor, layers: int, activation: str) -> dict[str, Any]:
    vocabulary, width = tokens.shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "max_position_embeddings": positions.shape[0],
        "intermediate_size": mlp.shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // _HEAD_DIM),
        "hidden_act": activation,
        "eos_token_id": vocabulary - 1,
        "bos_token_id": vocabulary - 2,
    }


def _text_state(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint

    if any(name.startswith(_CLIP) for name in tensors):
        return convert_ldm_clip_checkpoint(tensors)
    last = f"{_OPEN_CLIP}transformer.resblocks.{config['num_hidden_layers']}."
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(last) and name != f"{_OPEN_CLIP}text_projection"
    }
    # The converter asks a model only for its width.
    sized = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
    return convert_open_clip_checkpoint(sized, kept, prefix=_OPEN_CLIP)


def _tokenizer_folder(path: Path, given: str | Path | None, repository: str) -> Path:
    """What was given (a folder or hub id), else a folder `tokenizer` beside the file, else the family's on the hub."""
    if given is not None:
        folder = Path(given).expanduser()
        if not folder.is_dir():
            return download_tokenizer(str(given))
        return folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
    if (path.parent / "tokenizer").is_dir():
        return path.parent / "tokenizer"
    try:
        return download_tokenizer(repository)
    except ModelError as error:
        raise ModelError(
            f"{path} has no tokenizer of its own: put one (vocab.json and merges.txt) in {path.parent / 'tokenizer'}, "
            f"or give tokenizer= ({error})"
        ) from None


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number that `pattern` finds in the names."""
    return 1 + max(int(found[1]) for name in tensors if (found := re.match(pattern, name)))
