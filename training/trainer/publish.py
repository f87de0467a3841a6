"""The trained model as a folder in Hugging Face layout, with a card that says what it was made of and how."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from ip2p_fast.checkpoints import merged_state

from .adapters import add_adapters, save_adapters
from .parts import Parts
from .recipe import Recipe

_INDEX = "model_index.json"
_LIBRARIES = {
    "unet": "diffusers",
    "vae": "diffusers",
    "scheduler": "diffusers",
    "text_encoder": "transformers",
    "tokenizer": "transformers",
}
_OF_AN_EDIT = ("size", "steps", "sampler", "text_guidance", "image_guidance")


def trained_parts(parts: Parts, state: Mapping[str, Tensor], recipe: Recipe) -> Parts:
    """The parts with a UNet of this state of its own, adapters merged, in float32 on the CPU."""
    return replace(parts, unet=_merged(_with_adapters(parts, state, recipe), recipe))


def publish(
    out: Path,
    parts: Parts,
    state: Mapping[str, Tensor],
    recipe: Recipe,
    model: str,
    data: Sequence[str],
    figures: Mapping,
) -> None:
    """Writes the model to `out` in place of one that is there; with adapters, these too, to lora/.

    Each folder is replaced whole, and the index, by which a loader knows a model, goes first and comes last.
    """
    unet = _with_adapters(parts, state, recipe)
    with tempfile.TemporaryDirectory(dir=out, prefix=".model-") as temporary:
        made = Path(temporary)
        if recipe.lora:
            save_adapters(unet, made / "lora")
        _save(replace(parts, unet=_merged(unet, recipe)), made)
        defaults = {name: value for name, value in (parts.defaults or {}).items() if name in _OF_AN_EDIT}
        (made / "defaults.json").write_text(json.dumps(defaults, indent=2) + "\n", encoding="utf-8")
        (made / "README.md").write_text(card(recipe, model, data, figures), encoding="utf-8")
        (out / _INDEX).unlink(missing_ok=True)
        for part in sorted(made.iterdir(), key=lambda path: path.name == _INDEX):
            if (out / part.name).is_dir():
                shutil.rmtree(out / part.name)
            part.replace(out / part.name)


def card(recipe: Recipe, model: str, data: Sequence[str], figures: Mapping[str, Any]) -> str:
    """README.md of the folder, its head as the hub reads it."""
    settings = asdict(recipe)
    lines = [
        "---",
        "library_name: diffusers",
        "pipeline_tag: image-to-image",
        "tags: [instruct-pix2pix]",
        "---",
        "",
        "# An image editing model",
        "",
        f"InstructPix2Pix's training (Brooks et al., CVPR 2023), begun with `{model}`; made with `ip2p-fast train`.",
        "",
        "```python",
        "from ip2p_fast import Editor",
        'Editor.from_pretrained("FOLDER").edit("picture.png", "make it night").images[0].save("edited.png")',
        "```",
        "",
        "`diffusers.StableDiffusionInstructPix2PixPipeline.from_pretrained` loads it too.",
        "",
        "## Data",
        "",
        *(f"- `{source}`" for source in data),
        "",
        "## Figures",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {_number(value)} |" for name, value in figures.items()),
        "",
        "## Configuration",
        "",
        "| setting | value |",
        "| --- | --- |",
        *(f"| {name} | {value!r} |" for name, value in settings.items()),
        "",
    ]
    return "\n".join(lines)


def _with_adapters(parts: Parts, state: Mapping[str, Tensor], recipe: Recipe) -> UNet2DConditionModel:
    """A UNet of its own with this state, so that the one in training, wherever it lies, is left alone."""
    config = {name: value for name, value in parts.unet.config.items() if not name.startswith("_")}
    unet = UNet2DConditionModel(**config)
    if recipe.lora:
        add_adapters(unet, recipe.lora, parts.grown)
    unet.load_state_dict(dict(state))
    return unet.requires_grad_(False).eval()


def _merged(unet: UNet2DConditionModel, recipe: Recipe) -> UNet2DConditionModel:
    if not recipe.lora:
        return unet
    config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    plain = UNet2DConditionModel(**config)
    plain.load_state_dict(merged_state(unet))
    return plain.requires_grad_(False).eval()


def _save(parts: Parts, folder: Path) -> None:
    """As diffusers' pipeline saves itself."""
    index: dict[str, Any] = {"_class_name": "StableDiffusionInstructPix2PixPipeline", "requires_safety_checker": False}
    index |= dict.fromkeys(("feature_extractor", "image_encoder", "safety_checker"), [None, None])
    for name, library in _LIBRARIES.items():
        part = getattr(parts, name)
        part.save_pretrained(folder / name)
        # under this name transformers' fast tokenizers are loaded too
        index[name] = [library, type(part).__name__.removesuffix("Fast")]
    (folder / _INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
