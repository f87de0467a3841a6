"""The model that is distilled, as it is read, and its student, as it is written."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix import (
    StableDiffusionInstructPix2PixPipeline,
)
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from torch import nn
from transformers import CLIPTokenizer

from ip2p_fast import checkpoints
from ip2p_fast.errors import BadInput
from ip2p_fast.model_files import read_json
from ip2p_fast.unet_config import CONDITIONED_ON, UNetConfig

from ..trainer.parts import Parts
from ..trainer.recipe import Recipe
from .student import FEW_STEPS, declared

STUDENT_DEFAULTS: dict[str, Any] = {"steps": 4, "sampler": "lcm"}
"""How a student edits best."""
_INDEX = "model_index.json"


def load_model(model: str, stages: tuple[str, ...]) -> Parts:
    """The networks, in float32, of an edit model that these stages can distil.

    Raises:
        ModelError: it is not there, incomplete, damaged, or no edit model.
        BadInput: it is a student already, or `consistency` alone is asked for and it is none.
    """
    checkpoint = checkpoints.load(model)
    if checkpoint.path is None or not checkpoint.path.is_dir():
        raise BadInput(f"{model} is a single file: distillation needs a folder in Hugging Face layout")
    config = checkpoint.unet_config
    told = UNetConfig.from_diffusers(config).guidance_dim is not None
    if FEW_STEPS in config:
        raise BadInput(f"{model} edits in {config[FEW_STEPS]} steps already: distil the model that it was made from")
    if told and "guidance" in stages:
        raise BadInput(f"{model} is a student already, it needs one row: --stage consistency brings it to few steps")
    if not told and "guidance" not in stages:
        raise BadInput(f"{model} needs three rows: --stage both, or --stage guidance first")
    own = {CONDITIONED_ON, FEW_STEPS}
    unet = UNet2DConditionModel(**{k: v for k, v in config.items() if not k.startswith("_") and k not in own})
    unet.load_state_dict(checkpoint.unet_state)
    return Parts(
        unet=unet,
        vae=nn.Module.float(checkpoint.vae),
        text_encoder=nn.Module.float(checkpoint.text_encoder),
        tokenizer=CLIPTokenizer.from_pretrained(checkpoint.path / "tokenizer"),
        scheduler=EulerAncestralDiscreteScheduler.from_config(checkpoint.scheduler_config),
        defaults=checkpoint.defaults,
    )


def own_resolution(model: str) -> int:
    """The side of the pictures that a folder's defaults.json names, else the paper's 256."""
    path = checkpoints.SHIPPED.get(model, Path(model)) / "defaults.json"
    return int(read_json(path).get("size", Recipe.resolution)) if path.is_file() else Recipe.resolution


def write_student(parts: Parts, out: Path, few_steps: int | None) -> None:
    """Writes the model whose UNet is a student; the index, by which a loader knows a model, comes last.

    few_steps: how many steps it was distilled to, if it was.

    Raises:
        BadInput: it cannot be written, as on a full disk.
    """
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=".model-") as temporary:
            made = Path(temporary)
            _pipeline(parts).save_pretrained(made)
            config = made / "unet" / "config.json"
            _write(config, declared(read_json(config), few_steps))
            _write(made / "defaults.json", {**(parts.defaults or {}), **STUDENT_DEFAULTS})
            for part in sorted(made.iterdir(), key=lambda path: path.name == _INDEX):
                if (out / part.name).is_dir():
                    shutil.rmtree(out / part.name)
                part.replace(out / part.name)
    except OSError as error:
        raise BadInput(f"cannot write {out}: {error.strerror or error}") from error


def _pipeline(parts: Parts) -> StableDiffusionInstructPix2PixPipeline:
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    networks: dict[str, Any] = {name: getattr(parts, name) for name in names}
    absent: dict[str, Any] = {"safety_checker": None, "feature_extractor": None}
    return StableDiffusionInstructPix2PixPipeline(**networks, **absent, requires_safety_checker=False)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
