"""Prompt-to-Prompt in diffusers, the straightforward way: one pair at a time, every attention map in memory.

After the original's data generation (InstructPix2Pix, section 3.1.2): four rows a step, null and text of both pictures;
the source's pre-softmax self-attention logits take the place of the target's in both halves while p > i / (N - 1), and
both pictures get the same noise. Euler ancestral steps as in k-diffusion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from torch import Tensor

NULL_SOURCE, NULL_TARGET, SOURCE, TARGET = range(4)


@dataclass
class Injection:
    """What the attention layers do at the present step.

    share_self: the source's self-attention in both halves. change_text: from the maps [heads, N, 77] of the text of
    source and target to new ones of the target. text_maps: where given, the maps of both texts are put there,
    [2, heads, N, 77] a layer.
    """

    share_self: bool = False
    change_text: Callable[[Tensor, Tensor], Tensor] | None = None
    text_maps: list[Tensor] | None = field(default=None)


class ExplicitAttention:
    """A diffusers attention processor whose maps [rows, heads, N, M] are tensors that an injection can change."""

    def __init__(self, injection: Injection) -> None:
        self.injection = injection

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **unused: Any
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # [4, heads, N, d]

        q, k, v = heads(attn.to_q(hidden_states)), heads(attn.to_k(context)), heads(attn.to_v(context))
        logits = torch.einsum("rhnd,rhmd->rhnm", q, k) * attn.scale
        if encoder_hidden_states is None and self.injection.share_self:
            logits = logits[[NULL_SOURCE, NULL_SOURCE, SOURCE, SOURCE]]
        maps = logits.softmax(-1)
        if encoder_hidden_states is not None:
            if self.injection.change_text is not None:
                changed = self.injection.change_text(maps[SOURCE], maps[TARGET])
                maps = torch.cat([maps[:TARGET], changed[None]])
            if self.injection.text_maps is not None:
                self.injection.text_maps.append(maps[[SOURCE, TARGET]])
        out = torch.einsum("rhnm,rhmd->rhnd", maps, v).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](out))


class PromptToPrompt:
    """The script: `pair` makes the two pictures of one caption pair."""

    def __init__(self, pipe: StableDiffusionPipeline) -> None:
        self.pipe = pipe
        self.injection = Injection()
        unet: UNet2DConditionModel = pipe.unet
        unet.set_attn_processor(ExplicitAttention(self.injection))  # type: ignore[arg-type]  # any callable will do

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> PromptToPrompt:
        pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype, safety_checker=None)
        pipe.set_progress_bar_config(disable=True)
        return cls(pipe.to(device))

    @torch.no_grad()
    def pair(self, captions: tuple[str, str], noise: np.ndarray, p: float, cfg: float) -> tuple[np.ndarray, np.ndarray]:
        """The pictures [H, W, 3] uint8 before and after.

        Args:
            noise: [1 + steps, 4, h, w] unit normal, the start and one a step, for both pictures.
            p: share of the steps in which self-attention is shared. cfg: the guidance scale.
        """
        latents = self.latents(captions, noise, cfg, share_self=lambda i: p > i / (len(noise) - 2))
        scaled = latents / self.pipe.vae.config.scaling_factor
        decoded = [self.pipe.vae.decode(x[None]).sample for x in scaled]
        pictures = [((x[0].float() * 127.5 + 127.5).round().clamp(0, 255)).permute(1, 2, 0) for x in decoded]
        before, after = (picture.to(torch.uint8).cpu().numpy() for picture in pictures)
        return before, after

    @torch.no_grad()
    def latents(
        self,
        captions: tuple[str, str],
        noise: np.ndarray,
        cfg: float,
        share_self: Callable[[int], bool],
        change_text: Callable[[int], Callable[[Tensor, Tensor], Tensor] | None] = lambda i: None,
        after_step: Callable[[int, Tensor], Tensor] = lambda i, x: x,
    ) -> Tensor:
        """The latents [2, 4, h, w] of both pictures.

        Args:
            share_self, change_text: of a step's number, what `Injection` does in it.
            after_step: of a step's number and its latents, those to go on with.
        """
        pipe = self.pipe
        dtype, device = pipe.unet.dtype, pipe.unet.device
        words = pipe.tokenizer(
            ["", "", *captions], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        )
        contexts = pipe.text_encoder(words.input_ids.to(device))[0]
        scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
        scheduler.set_timesteps(len(noise) - 1)
        sigmas = scheduler.sigmas.double()
        velocity = scheduler.config.prediction_type == "v_prediction"

        drawn = torch.from_numpy(noise).to(device, torch.float64)
        x = drawn[0].expand(2, -1, -1, -1) * sigmas[0]
        for i, timestep in enumerate(scheduler.timesteps):
            sigma, following = sigmas[i], sigmas[i + 1]
            self.injection.share_self, self.injection.change_text = share_self(i), change_text(i)
            root = (sigma**2 + 1).sqrt()
            scaled = (x / root).to(dtype)
            null, text = pipe.unet(scaled.repeat(2, 1, 1, 1), timestep, contexts).sample.double().chunk(2)
            guided = null + cfg * (text - null)
            clean = x / root**2 - guided * sigma / root if velocity else x - sigma * guided
            up = (following**2 * (sigma**2 - following**2) / sigma**2).sqrt()
            down = (following**2 - up**2).sqrt()
            x = x + (x - clean) / sigma * (down - sigma) + drawn[1 + i] * up
            x = after_step(i, x)
        return x.to(dtype)
