"""One guided step of one edit, ours and diffusers': what is timed against each other at Stable Diffusion's size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ip2p_fast.backends import Backend
from ip2p_fast.backends.choice import loader
from ip2p_fast.backends.torch_backend import TorchBackend, resolve_dtype
from ip2p_fast.checkpoints import from_pipeline
from ip2p_fast.guidance import dual_guidance
from ip2p_fast.loop import LoopEdit, StepLoop
from ip2p_fast.samplers import sampler_table
from ip2p_fast.tokenizer import Tokenizer

from .inputs import INSTRUCTION, picture
from .timing import Work

# the most steps there are, so that the contenders step on without ever coming to an end
_STEPS = 1000


@dataclass(frozen=True)
class Case:
    """What both sides run: pictures of `pixels` x `pixels`, three rows unless image_guidance is 1."""

    pixels: int
    device: torch.device
    text_guidance: float = 7.5
    image_guidance: float = 1.5


def our_step(pipe: Any, case: Case, dtype: str = "auto", **options: Any) -> Work:
    """Takes the weights of a diffusers pipeline over into a torch backend; each call is one `StepLoop.step()`.

    `options` are TorchBackend's own, as cuda_graph.
    """
    checkpoint = from_pipeline(pipe)
    backend = TorchBackend(checkpoint, case.device, resolve_dtype(dtype, case.device), **options)
    return step_of(backend, checkpoint.tokenizer, case)


def exported_step(bundle: Path, backend: str, case: Case, dtype: str = "auto") -> Work:
    """The same of an exported bundle."""
    loaded, tokenizer = loader(backend)(bundle, device="cpu", dtype=dtype)
    return step_of(loaded, tokenizer, case)


def step_of(backend: Backend, tokenizer: Tokenizer, case: Case) -> Work:
    """One edit in flight on a backend; each call is one `StepLoop.step()`."""
    table = sampler_table("euler_a", _STEPS, backend.info.schedule)
    rows = dual_guidance(case.text_guidance, case.image_guidance)
    edit = LoopEdit(
        image=np.array(picture(case.pixels)),
        tokens=np.stack([tokenizer.encode(text).ids for text in ("", INSTRUCTION)]),
        table=table,
        rows=(rows,) * _STEPS,
        seed=0,
    )
    loop = StepLoop(backend)
    loop.add([edit])
    return loop.step


class DiffusersStep:
    """The body of the denoising loop of diffusers' StableDiffusionInstructPix2PixPipeline; each call is one step.

    Its prompt and picture are encoded beforehand, as ours are. `unet` is the pipeline's, or a copy of it that is cast,
    laid out or compiled in another way; its dtype is that of the whole step, as it is in the pipeline.
    """

    def __init__(self, pipe: Any, unet: Any, case: Case, dtype: torch.dtype) -> None:
        self.unet, self.case = unet, case
        self.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        self.scheduler.set_timesteps(_STEPS, device=case.device)
        self.index = 0
        with torch.inference_mode():
            # rows in diffusers' order: text and picture, picture alone, neither
            context = _encode_texts(pipe, [INSTRUCTION, "", ""])
            image = _encode_picture(pipe, picture(case.pixels))
            self.context = context.to(case.device, dtype)
            self.images = torch.cat([image, image, torch.zeros_like(image)]).to(case.device, dtype)
            self.random = torch.Generator(case.device).manual_seed(0)
            noise = torch.randn(image.shape, generator=self.random, device=case.device, dtype=dtype)
            self.latents = noise * self.scheduler.init_noise_sigma

    @torch.inference_mode()
    def __call__(self) -> None:
        t = self.scheduler.timesteps[self.index]
        latents = self.scheduler.scale_model_input(torch.cat([self.latents] * 3), t)
        inputs = torch.cat([latents, self.images], dim=1)
        prediction = self.unet(inputs, t, encoder_hidden_states=self.context, return_dict=False)[0]
        text, image, null = prediction.chunk(3)
        guided = null + self.case.text_guidance * (text - image) + self.case.image_guidance * (image - null)
        self.latents = self.scheduler.step(guided, t, self.latents, generator=self.random, return_dict=False)[0]
        self.index += 1


def _encode_texts(pipe: Any, texts: list[str]) -> Tensor:
    ids = pipe.tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return pipe.text_encoder(ids.to(pipe.text_encoder.device))[0]


def _encode_picture(pipe: Any, image: Image.Image) -> Tensor:
    pixels = pipe.image_processor.preprocess(image).to(pipe.vae.device, pipe.vae.dtype)
    return pipe.vae.encode(pixels).latent_dist.mode()
