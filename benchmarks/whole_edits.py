"""Whole edits, picture in and picture out, by our editor and by diffusers' pipeline from the same model folder.

Light to import: what is measured in a process of its own should hold nothing but what its engine needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .inputs import INSTRUCTION, picture

# (model, settings, dtype) -> a function that makes `count` edits in one batch
Engine = Callable[["str | Path", "Settings", str], Callable[[int], object]]


@dataclass(frozen=True)
class Settings:
    """What both engines are asked for; pictures are size x size already. `backend` is ours alone."""

    size: int
    steps: int = 20
    text_guidance: float = 7.5
    image_guidance: float = 1.5
    device: str = "cpu"
    backend: str = "auto"


def our_editor(model: str | Path, settings: Settings, dtype: str) -> Callable[[int], object]:
    """A function that makes `count` edits in one batch. dtype as Editor.from_pretrained's."""
    from ip2p_fast import Editor, EditRequest

    editor = Editor.from_pretrained(model, settings.backend, settings.device, dtype)
    request = EditRequest(
        picture(settings.size),
        INSTRUCTION,
        text_guidance=settings.text_guidance,
        image_guidance=settings.image_guidance,
        steps=settings.steps,
        size=settings.size,
        seed=0,
    )
    return lambda count: editor.edit_many([request] * count)


def diffusers_pipeline(
    model: str | Path, settings: Settings, dtype: str, compiled: bool = False
) -> Callable[[int], object]:
    """The same by diffusers' StableDiffusionInstructPix2PixPipeline, with the sampler that the folder names.

    dtype: "float32" or "bfloat16". compiled: its UNet goes through torch.compile.
    """
    from .quiet import quiet_libraries

    quiet_libraries()
    import torch
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix import (
        StableDiffusionInstructPix2PixPipeline,
    )

    pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(model, torch_dtype=getattr(torch, dtype))
    pipe.to(settings.device)
    pipe.set_progress_bar_config(disable=True)
    if compiled:
        pipe.unet = torch.compile(pipe.unet)
    image = picture(settings.size)

    def edit(count: int) -> object:
        return pipe(
            [INSTRUCTION] * count,
            image=[image] * count,
            num_inference_steps=settings.steps,
            guidance_scale=settings.text_guidance,
            image_guidance_scale=settings.image_guidance,
            generator=torch.Generator(settings.device).manual_seed(0),
        )

    return edit
