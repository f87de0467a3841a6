"""Writes a trained pocket model as a Hugging Face folder: fp16, a folder a component, ready for diffusers."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from ..distill.student import declared
from .sizes import Size
from .tokenizer import save_tokenizer
from .unet import SCHEDULER

STUDENT_DEFAULTS: dict[str, Any] = {"steps": 4, "sampler": "lcm"}
"""How the one-row student edits best."""
_SHARED = ("vae", "text_encoder", "tokenizer")
_INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionInstructPix2PixPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def publish_vae(vae: AutoencoderKL, folder: Path) -> None:
    """Writes vae/."""
    _forget_graphs(folder)
    _half(vae).save_pretrained(folder / "vae")


def publish_unet(unet: UNet2DConditionModel, folder: Path) -> None:
    """Writes unet/."""
    _forget_graphs(folder)
    _half(unet).save_pretrained(folder / "unet")
    config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # where the weights that it began with lay on this machine
    _write(folder / "unet" / "config.json", config)


def publish_clip(clip: CLIPModel, tokenizer: CLIPTokenizer, size: Size, folder: Path) -> None:
    """Writes clip/ (both towers, how to feed it pictures), text_encoder/ (the very same text tower) and tokenizer/."""
    _forget_graphs(folder)
    clip = _half(clip)
    for name, part in (("clip", clip), ("text_encoder", text_tower(clip))):
        part.save_pretrained(folder / name)
        # without this, transformers would load fp16 next to diffusers' fp32, and the pipeline would not run
        config = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
        _write(folder / name / "config.json", config | {"dtype": "float32"})
    save_tokenizer(tokenizer, folder / "tokenizer")
    side = {"height": size.pixels, "width": size.pixels}
    feed = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size.pixels},
        "do_center_crop": True,
        "crop_size": side,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    _write(folder / "clip" / "preprocessor_config.json", feed)


def _forget_graphs(folder: Path) -> None:
    """Exported graphs are those of other weights from now on: `ip2p-fast export FOLDER --in-place` makes them again."""
    (folder / "bundle.json").unlink(missing_ok=True)


def publish_index(size: Size, folder: Path) -> None:
    """Writes model_index.json, scheduler/ and defaults.json (the settings of an edit that suit this model)."""
    _write(folder / "model_index.json", _INDEX)
    EulerAncestralDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    defaults = {
        "text_guidance": size.text_guidance,
        "image_guidance": size.image_guidance,
        "steps": 20,
        "size": size.pixels,
    }
    _write(folder / "defaults.json", defaults)


def student_folder(model: Path) -> Path:
    """Where the one-row student of a pocket model lies: beside it."""
    return model.with_name(f"{model.name}-student")


def publish_student(unet: UNet2DConditionModel, size: Size, model: Path, few_steps: int | None = None) -> None:
    """Writes the one-row student beside the pocket model, with copies of its autoencoder and text encoder.

    Copies, since the graphs of an exported folder may not lead out of it.

    few_steps: how many steps it was distilled to, if it was.
    """
    folder = student_folder(model)
    publish_unet(unet, folder)
    config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    _write(folder / "unet" / "config.json", declared(config, few_steps))
    for part in _SHARED:
        shutil.copytree(model / part, folder / part, dirs_exist_ok=True)
    _link_to(model, folder, ("reader",))
    publish_index(size, folder)
    defaults = json.loads((folder / "defaults.json").read_text(encoding="utf-8"))
    _write(folder / "defaults.json", defaults | STUDENT_DEFAULTS)


def publish_beside(unet: UNet2DConditionModel, size: Size, model: Path, folder: Path) -> None:
    """Writes another edit model of a pocket model's world, whose other parts it links to, its judges among them."""
    publish_unet(unet, folder)
    _link_to(model, folder, (*_SHARED, "clip", "reader"))
    publish_index(size, folder)


def _link_to(model: Path, folder: Path, parts: tuple[str, ...] = _SHARED) -> None:
    """Gives the folder parts of the model."""
    for part in parts:
        link = folder / part
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(model / part, folder), target_is_directory=True)


def writer_folder(model: Path) -> Path:
    """Where the language model of a pocket model's world lies: beside it."""
    return model.with_name(f"{model.name}-writer")


def base_folder(model: Path) -> Path:
    """Where the text-to-image model of a pocket model lies: beside it."""
    return model.with_name(f"{model.name}-base")


def publish_base(unet: UNet2DConditionModel, size: Size, model: Path) -> None:
    """Writes the text-to-image model beside the pocket model, whose autoencoder and text encoder it links to."""
    folder = base_folder(model)
    publish_unet(unet, folder)
    _link_to(model, folder)
    index = _INDEX | {"_class_name": "StableDiffusionPipeline"}
    _write(folder / "model_index.json", index)
    EulerAncestralDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    _write(folder / "defaults.json", {"size": size.pixels, "cfg": size.base_guidance})


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """The text tower of a CLIP as the text encoder of a diffusion model, with its own copy of the weights."""
    config: Any = clip.config.text_config
    encoder: Any = nn.Module.to(CLIPTextModel(config), device=clip.device, dtype=clip.dtype)
    # transformers 5.6 dropped the prefix that older versions have
    prefix = "text_model." if hasattr(encoder, "text_model") else ""
    weights = {prefix + name.removeprefix("text_model."): value for name, value in clip.text_model.state_dict().items()}
    encoder.load_state_dict(weights)
    return encoder.eval()


def _half(model: Any) -> Any:
    return copy.deepcopy(model).cpu().half().eval()


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
