"""Text2Live (Bar-Tal et al. 2022): an edit layer with opacity, trained for one picture and one text with CLIP's losses.

As in the paper and its released code: a U-Net that sees the picture and draws colour and opacity; the composition loss
(the composite against the text, and its change against the change of texts); the screen loss (the layer alone on
green); the structure loss (self-similarity of CLIP's deepest picture tokens); opacity kept sparse by L1 and a pseudo
L0; the weights of the losses, the learning rate and its decay; an internal data set of the one picture, cut, scaled and
flipped; texts in several wordings. Different here, so that an edit of a small picture takes seconds: a narrower U-Net,
fewer steps, Adam in place of MADGRAD, cosine in place of spherical distance, no jitter of colours, and no relevance map
to start the opacity from, which the released configuration leaves out too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..dataset.pairs.clip_scores import ClipScorer

GREEN = (0.0, 1.0, 0.0)
# Of the released configuration: composition 1, screen 1, structure 2, sparsity 6 x (0.01 L0 + 0.01 L1).
_SCREEN, _STRUCTURE, _SPARSE = 1.0, 2.0, 0.06
_RATE, _DECAY, _LEAST_RATE = 2.5e-3, 0.99, 1e-5
_LEAST_COVER = 0.85
_TOLD = 50
_SCALES = (0.8, 1.2)
_WORDINGS = ("{}", "a photo of {}", "a picture of {}", "an image of {}", "a rendering of {}")
_ON_SCREEN = ("{} over a green screen", "{} on a green background", "{} in front of a green screen")


@dataclass(frozen=True)
class Training:
    """steps: of Adam. views: of the picture a step, itself among them. width: channels of the U-Net's first level."""

    steps: int = 200
    views: int = 3
    width: int = 16
    levels: int = 3


class DifferentiableClip(ClipScorer):
    """A CLIP in float32 through whose picture tower gradients flow."""

    def __init__(self, model: str | Path = "pocket", device: str = "cpu") -> None:
        """Raises ModelError as ClipScorer."""
        super().__init__(model, device)
        self._clip.float().requires_grad_(False)
        self._dtype, self._mean, self._std = torch.float32, self._mean.float(), self._std.float()

    @property
    def device(self) -> torch.device:
        return self._device

    def texts(self, text: str, wordings: tuple[str, ...]) -> Tensor:
        """Unit vectors of a text in several wordings, [W, D], for use under autograd."""
        return self.embed_texts([wording.format(text) for wording in wordings]).clone()

    def pictures(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 3, H, W] in 0..1 -> unit vectors [N, D], and the last layer's tokens but the class token, [N, T, W]."""
        side = self.side
        if x.shape[-2:] != (side, side):
            x = F.interpolate(x, size=(side, side), mode="bicubic", align_corners=False)
        seen = self._clip.vision_model((x - self._mean) / self._std)
        embedded = self._clip.visual_projection(seen.pooler_output)
        return F.normalize(embedded, dim=-1), seen.last_hidden_state[:, 1:]


class EditLayer(nn.Module):
    """A small U-Net with skips. [N, 3, H, W] in 0..1 -> colour [N, 3, H, W] and opacity [N, 1, H, W], in 0..1 too."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        widths = [width * 2 ** min(level, 2) for level in range(levels + 1)]
        self.first = _convolution(3, width)
        self.down = nn.ModuleList(_convolution(a, b, stride=2) for a, b in zip(widths, widths[1:], strict=False))
        self.up = nn.ModuleList(_convolution(a + b, a) for a, b in zip(widths, widths[1:], strict=False))
        self.last = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.first(x)
        skips = []
        for down in self.down:
            skips.append(h)
            h = down(h)
        for up, skip in zip(reversed(self.up), reversed(skips), strict=True):
            h = F.interpolate(h, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            h = up(torch.cat([skip, h], dim=1))
        out = self.last(h).sigmoid()  # [N, 4, H, W]
        return out[:, :3], out[:, 3:]


def text2live(
    clip: DifferentiableClip,
    picture: np.ndarray,
    captions: tuple[str, str],
    seed: int = 0,
    training: Training | None = None,
    advance: Callable[[int], None] = lambda step: None,
) -> np.ndarray:
    """The picture edited towards the second caption: [H, W, 3] uint8 to the same.

    Args:
        captions: of the source (the paper's T_ROI) and of the wanted picture (T). The screen's text is the latter
            "over a green screen", where the paper has a person name the layer alone.
        seed: of the network's weights, the views and the wordings.
        advance: told the number of steps done, now and then.
    """
    training = training or Training()
    random = torch.Generator().manual_seed(seed)
    source = torch.from_numpy(picture).permute(2, 0, 1).float().to(clip.device) / 255  # [3, H, W]
    before, after = (clip.texts(caption, _WORDINGS) for caption in captions)
    on_screen = clip.texts(captions[1], _ON_SCREEN)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = EditLayer(training.width, training.levels).to(clip.device)
    optimizer = torch.optim.Adam(layer.parameters(), lr=_RATE)
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = max(_LEAST_RATE, _RATE * _DECAY**step)
        views = _views(source, training.views, random)
        wording = int(torch.randint(len(before), (), generator=random))
        screen = int(torch.randint(len(on_screen), (), generator=random))
        loss = edit_loss(clip, layer, views, before[wording], after[wording], on_screen[screen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % _TOLD == 0 or step + 1 == training.steps:
            advance(step + 1)
    with torch.no_grad():
        colour, opacity = layer(source[None])
        composite = composed(colour, opacity, source[None])[0]
    return (composite * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def composed(colour: Tensor, opacity: Tensor, under: Tensor) -> Tensor:
    """The layer over a picture (section 3)."""
    return opacity * colour + (1 - opacity) * under


def edit_loss(
    clip: DifferentiableClip, layer: nn.Module, views: Tensor, before: Tensor, after: Tensor, on_screen: Tensor
) -> Tensor:
    """The paper's loss (equations 1 to 6, without the relevance map) over views [N, 3, H, W]; texts are [D]."""
    colour, opacity = layer(views)
    composite = composed(colour, opacity, views)
    green = torch.tensor(GREEN, device=views.device).view(1, 3, 1, 1).expand_as(views)
    with torch.no_grad():
        sources, source_tokens = clip.pictures(views)
    edited, tokens = clip.pictures(composite)
    alone, _ = clip.pictures(composed(colour, opacity, green))
    composition = _distance(edited, after) + _distance(edited - sources, after - before)
    structure = F.mse_loss(_self_similarity(tokens), _self_similarity(source_tokens))
    sparse = opacity.mean() + (2 * torch.sigmoid(5 * opacity) - 1).mean()
    return composition + _SCREEN * _distance(alone, on_screen) + _STRUCTURE * structure + _SPARSE * sparse


def _distance(pictures: Tensor, text: Tensor) -> Tensor:
    return (1 - F.cosine_similarity(pictures, text[None], dim=-1)).mean()


def _self_similarity(tokens: Tensor) -> Tensor:
    """Cosines between all tokens: [N, T, W] -> [N, T, T]"""
    unit = F.normalize(tokens, dim=-1)
    return unit @ unit.transpose(1, 2)


def _views(source: Tensor, count: int, random: torch.Generator) -> Tensor:
    """The whole picture and count - 1 crops of it, scaled and flipped, all at its size. [3, H, W] -> [N, 3, H, W]"""
    height, width = source.shape[-2:]
    views = [source]
    for _ in range(count - 1):
        draw = torch.rand(5, generator=random).tolist()
        low, high = _SCALES
        cover, scale = _LEAST_COVER + (1 - _LEAST_COVER) * draw[0], low + (high - low) * draw[1]
        size = max(1, round(height * cover)), max(1, round(width * cover))
        top, left = int(draw[2] * (height - size[0] + 1)), int(draw[3] * (width - size[1] + 1))
        crop = source[None, :, top : top + size[0], left : left + size[1]]
        if draw[4] < 0.5:
            crop = crop.flip(-1)
        small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        crop = F.interpolate(crop, size=small, mode="bilinear", align_corners=False, antialias=True)
        views.append(F.interpolate(crop, size=(height, width), mode="bilinear", align_corners=False)[0])
    return torch.stack(views)


def _convolution(a: int, b: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, padding_mode="reflect"), nn.GroupNorm(4, b), nn.LeakyReLU(0.2))
