"""The four graphs of a bundle, as PyTorch modules of plain operations, each with the names and sides of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ip2p_fast.bundle import TensorSpec
from ip2p_fast.layers import linear_of
from ip2p_fast.transformer import FeedForward
from ip2p_fast.unet import UNet

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from ip2p_fast.checkpoints import Checkpoint


@dataclass(frozen=True)
class TracedGraph:
    """A module to trace.

    inputs   in the order of the module's forward
    example  a size for every letter of the shapes, to trace it with; all differ, so that none is taken for another
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    example: Mapping[str, int]


def traced_graphs(
    checkpoint: Checkpoint, dtype: torch.dtype, vae_scale: int, size_multiple: int
) -> tuple[TracedGraph, ...]:
    """The graphs of a model that computes in `dtype`; the checkpoint's modules are changed to it in place."""
    channels = checkpoint.vae.config["latent_channels"]
    width, length = checkpoint.text_encoder.config.hidden_size, checkpoint.tokenizer.length
    unet = UNet.load(checkpoint.unet_config, checkpoint.unet_state, fuse=False).to(dtype=dtype)
    for module in unet.modules():
        if isinstance(module, FeedForward):
            module.net[0] = GatedHalves(module.net[0].proj)
    place = partial(nn.Module.to, dtype=dtype)  # the libraries' overrides warn about lists that are empty here
    vae, text_encoder = place(checkpoint.vae).eval(), place(checkpoint.text_encoder).eval()
    latents = TensorSpec("float32", ("B", channels, "h", "w"))
    history = TensorSpec("float32", ("B", 2, channels, "h", "w"))
    pixels = TensorSpec("uint8", ("B", "H", "W", 3))
    height, breadth = 4 * size_multiple, 6 * size_multiple  # pixels
    sides = {"h": height // vae_scale, "w": breadth // vae_scale}
    return (
        TracedGraph(
            "guided_step",
            GuidedStep(unet),
            inputs={
                "x": latents,
                "history": history,
                "image_latents": latents,
                "contexts": TensorSpec("float32", ("C", length, width)),
                "edit": TensorSpec("int64", ("R",)),
                "context": TensorSpec("int64", ("R",)),
                "image_on": TensorSpec("bool", ("R",)),
                "weight": TensorSpec("float32", ("R",)),
                "timesteps": TensorSpec("float32", ("B",)),
                "coefficients": TensorSpec("float32", ("B", 7)),
                "noise": latents,
                **({"scales": TensorSpec("float32", ("R", 2))} if unet.config.guidance_dim else {}),
            },
            outputs={"x_next": latents, "history_next": history},
            example={"B": 2, "R": 5, "C": 3, **sides},
        ),
        TracedGraph(
            "text_encoder",
            TextEncoder(text_encoder),
            inputs={"ids": TensorSpec("int64", ("N", length))},
            outputs={"context": TensorSpec("float32", ("N", length, width))},
            example={"N": 2},
        ),
        TracedGraph(
            "vae_encoder",
            VaeEncoder(vae, dtype),
            inputs={"pixels": pixels},
            outputs={"mode": latents},
            example={"B": 2, "H": height, "W": breadth},
        ),
        TracedGraph(
            "vae_decoder",
            VaeDecoder(vae, dtype),
            inputs={"latents": latents},
            outputs={"pixels": pixels},
            example={"B": 2, **sides},
        ),
    )


class GuidedStep(nn.Module):
    """UNet on R rows, their weighted sum by edit, and the sampler's step: `kernels.guided_step` and all before it.

    The arithmetic is float32 but for the UNet's, and a weight or coefficient that is exactly 0 leaves its term out.
    """

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        x: Tensor,
        history: Tensor,
        image_latents: Tensor,
        contexts: Tensor,
        edit: Tensor,
        context: Tensor,
        image_on: Tensor,
        weight: Tensor,
        timesteps: Tensor,
        coefficients: Tensor,
        noise: Tensor,
        scales: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Shapes as `traced_graphs` says: B edits, R rows, C texts -> x' [B, C, h, w], history' [B, 2, C, h, w]

        scales: of a distilled model alone.
        """
        images = torch.where(image_on.view(-1, 1, 1, 1), image_latents[edit], 0.0)
        rows = torch.cat([x[edit], images], dim=1)  # [R, 2 C, h, w]
        layers = self.unet.text_keys_values(contexts.to(self.unet.dtype))
        text = [(keys[context], values[context]) for keys, values in layers]
        predictions = self.unet(rows, timesteps[edit], text, scales=scales).to(x.dtype)
        # no scattering with a sum, which TensorRT lacks: a row that is another edit's, or of weight 0, counts as zeros
        own = edit == torch.arange(x.shape[0], device=x.device)[:, None]  # [B, R]
        counts = (own & (weight != 0))[:, :, None, None, None]
        guided = torch.where(counts, weight.view(-1, 1, 1, 1) * predictions, 0.0).sum(1)  # [B, C, h, w]
        a, b0, b1, b2, c, p, q = coefficients.view(-1, 7, 1, 1, 1).unbind(1)  # each [B, 1, 1, 1]
        earlier, before_that = history.unbind(1)
        clean = _times(p, x) + _times(q, guided)
        x_next = _times(a, x) + _times(b0, clean) + _times(b1, earlier) + _times(b2, before_that) + _times(c, noise)
        return x_next, torch.stack([clean, earlier], dim=1)


class TextEncoder(nn.Module):
    """ids [N, 77] -> [N, 77, D] float32"""

    def __init__(self, text_encoder: nn.Module) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, ids: Tensor) -> Tensor:
        return self.text_encoder(ids, return_dict=False)[0].float()


class VaeEncoder(nn.Module):
    """pixels [B, H, W, 3] uint8 -> the posterior's mode [B, C, h, w] float32, not scaled"""

    def __init__(self, vae: AutoencoderKL, dtype: torch.dtype) -> None:
        super().__init__()
        self.vae, self.dtype = vae, dtype

    def forward(self, pixels: Tensor) -> Tensor:
        scaled = pixels.to(self.dtype).permute(0, 3, 1, 2) / 127.5 - 1.0  # [B, 3, H, W]
        return self.vae.encode(scaled).latent_dist.mode().float()


class VaeDecoder(nn.Module):
    """latents [B, C, h, w] float32, scaled -> pixels [B, H, W, 3] uint8, rounded and clipped"""

    def __init__(self, vae: AutoencoderKL, dtype: torch.dtype) -> None:
        super().__init__()
        self.vae, self.dtype = vae, dtype
        self.scaling_factor = float(vae.config["scaling_factor"])

    def forward(self, latents: Tensor) -> Tensor:
        scaled = (latents / self.scaling_factor).to(self.dtype)
        pixels = self.vae.decode(scaled, return_dict=False)[0].float()
        # bytes at the very end: TensorRT has them as inputs and outputs alone
        return (pixels * 127.5 + 127.5).round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)


class GatedHalves(nn.Module):
    """GEGLU by a layer for each half, which saves a copy of both: a split is one in most runtimes."""

    def __init__(self, joined: Any) -> None:
        super().__init__()
        halves = zip(joined.weight.chunk(2), joined.bias.chunk(2), strict=True)
        self.hidden, self.gate = (linear_of(weight, bias) for weight, bias in halves)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.hidden(tokens) * F.gelu(self.gate(tokens))


def _times(coefficient: Tensor, value: Tensor) -> Tensor:
    # 0 x NaN is NaN: a term whose coefficient is exactly zero is absent, whatever its value holds
    return torch.where(coefficient != 0, coefficient * value, 0.0)
