"""Whole edits, picture in and picture out, by our editor and by diffusers' pipeline from the same model folder.

Light to import: what is measured in a process of its own should hold nothing but what its engine needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .inputs import INSTRUCTION, picture

if TYPE_CHECKING:
    from ip2p_fast import Editor

# (model, settings, dtype) -> a function that makes `count` edits in one batch
Engine = Callable[["str | Path", "Settings", str], Callable[[int], object]]
# (settings, count) -> makes `count` edits in one batch
Edit = Callable[["Settings", int], object]


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
    return partial(open_editor(model, settings.backend, settings.device, dtype), settings)


def our_sparing_editor(model: str | Path, settings: Settings, dtype: str) -> Callable[[int], object]:
    """`our_editor` with low_memory."""
    return partial(open_editor(model, settings.backend, settings.device, dtype, low_memory=True), settings)


def diffusers_pipeline(model: str | Path, settings: Settings, dtype: str) -> Callable[[int], object]:
    """The same by diffusers' StableDiffusionInstructPix2PixPipeline, with the sampler that the folder names.

    dtype: "float32" or "bfloat16".
    """
    return partial(open_diffusers(model, settings.device, dtype)[1], settings)


def open_editor(model: str | Path, backend: str, device: str, dtype: str, **options: Any) -> Edit:
    """Loads our editor, for edits of any settings. options: of Editor.from_pretrained."""
    from ip2p_fast import Editor

    return edit_of(Editor.from_pretrained(model, backend, device, dtype, **options))


def edit_of(editor: Editor) -> Edit:
    """What edits with an editor that is loaded."""
    from ip2p_fast import EditRequest

    def edit(settings: Settings, count: int) -> object:
        request = EditRequest(
            picture(settings.size),
            INSTRUCTION,
            text_guidance=settings.text_guidance,
            image_guidance=settings.image_guidance,
            steps=settings.steps,
            size=settings.size,
            seed=0,
        )
        return editor.edit_many([request] * count)

    return edit


def open_diffusers(model: str | Path, device: str, dtype: str) -> tuple[Any, Edit]:
    """Loads diffusers' pipeline: itself, to be changed as a peer changes it, and what edits with it."""
    from .quiet import quiet_libraries

    quiet_libraries()
    import torch
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix import (
        StableDiffusionInstructPix2PixPipeline,
    )

    pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(model, torch_dtype=getattr(torch, dtype))
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)

    def edit(settings: Settings, count: int) -> object:
        return pipe(
            [INSTRUCTION] * count,
            image=[picture(settings.size)] * count,
            num_inference_steps=settings.steps,
            guidance_scale=settings.text_guidance,
            image_guidance_scale=settings.image_guidance,
            generator=torch.Generator(device).manual_seed(0),
        )

    return pipe, edit
