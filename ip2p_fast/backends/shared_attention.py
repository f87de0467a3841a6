"""Sharing of attention as tensors: what a `SharingPlan` becomes before the UNet, and its local blends after a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..sharing import Blending, LocalBlend, SharingPlan, TextControl
from ..transformer import KeysValues, SharedMaps
from .transfers import send


def share(
    plan: SharingPlan | None, texts: Sequence[Sequence[KeysValues]], latents: Sequence[int], device: torch.device
) -> tuple[SharedMaps, list[KeysValues]]:
    """What the UNet needs for the R rows of a step.

    Args:
        plan: None where every row uses maps of its own.
        texts: of each row, keys and values [1, heads, 77, d] a layer.
        latents: height and width.
    Returns:
        the maps, and for each layer keys [R, heads, 77, d] and values [V, heads, 77, d].
    """
    rows = len(texts)
    source = np.arange(rows) if plan is None else plan.self_source
    maps, of_row = np.unique(source, return_inverse=True)
    readings = _readings(rows, plan)
    shared = SharedMaps(_send(of_row, device), maps=None if len(maps) == rows else _send(maps, device))
    if plan is not None and plan.controls:
        text_source = _send([reading.source for reading in readings], device)
        shared = replace(shared, text_source=text_source, text_row=_send([r.row for r in readings], device))
    if plan is not None and plan.blendings:
        height, width = _looked_at(plan.blendings[0].blend, latents)
        shared = replace(shared, words=_words(readings, plan.blendings).to(device), word_tokens=height * width)
    layers = []
    for layer in range(len(texts[0])):
        keys = torch.cat([text[layer][0] for text in texts])
        layers.append((keys, torch.cat([reading.changed(texts[reading.row][layer][1]) for reading in readings])))
    return shared, layers


def blend(x: Tensor, seen: Sequence[Tensor | None], maps: Sequence[Tensor], plan: SharingPlan) -> list[Tensor | None]:
    """Puts the sources' latents back, in place, where neither picture's chosen words draw attention.

    Args:
        x: [E, C, h, w], the step's latents.
        seen: of each edit, what this returned at the step before.
        maps: what the UNet collected in this step: [R, N, 1] a layer.
    Returns:
        for each edit that is blended, the attention of its source and its own, summed over steps so far, [2, h', w'].
    """
    seen = list(seen)
    share_of_words = torch.stack(list(maps)).float().mean(0)[..., 0]  # [R, N]
    for blending in plan.blendings:
        size = _looked_at(blending.blend, x.shape[2:])
        both = torch.stack([share_of_words[blending.source_row], share_of_words[blending.row]])  # [2, N]
        new = both.unflatten(1, size)  # [2, h', w']
        before = seen[blending.edit]
        seen[blending.edit] = total = new if before is None else before + new
        if not blending.active:
            continue
        wide = F.interpolate(F.max_pool2d(total, 3, stride=1, padding=1)[None], size=x.shape[2:])[0]
        wide = wide / wide.amax((1, 2), keepdim=True)
        changes = (wide > blending.blend.threshold).any(0)
        x[blending.edit] = torch.where(changes, x[blending.edit], x[blending.source])
    return seen


@dataclass(frozen=True)
class _Reading:
    """One value row: `row` reads its text under the map of `source`, by `control`'s matrix or by its own column."""

    row: int
    source: int
    control: TextControl | None = None

    def changed(self, values: Tensor) -> Tensor:
        """Values of the row's text, [..., 77, d] -> the same shape: what changes the map is done to them."""
        if self.control is None:
            return values
        if self.row == self.source:
            return values * torch.from_numpy(self.control.own).to(values)[:, None]
        return torch.from_numpy(self.control.matrix).to(values) @ values


def _readings(rows: int, plan: SharingPlan | None) -> list[_Reading]:
    controls = {row: (source, control) for row, source, control in plan.controls} if plan is not None else {}
    readings = []
    for row in range(rows):
        if row not in controls:
            readings.append(_Reading(row, row))
            continue
        source, control = controls[row]
        readings.append(_Reading(row, source, control))
        if control.own.any():
            readings.append(_Reading(row, row, control))
    return readings


def _words(readings: Sequence[_Reading], blendings: Sequence[Blending]) -> Tensor:
    """The chosen words of each value row: [V, 77] float32, zeros for rows that are not looked at."""
    of_row = {blending.source_row: blending.blend.source_words for blending in blendings}
    of_row |= {blending.row: blending.blend.words for blending in blendings}
    none = np.zeros_like(blendings[0].blend.words)
    words = [torch.from_numpy(of_row.get(reading.row, none)) for reading in readings]
    return torch.stack([r.changed(word[:, None])[:, 0] for r, word in zip(readings, words, strict=True)])


def _looked_at(blend: LocalBlend, latents: Sequence[int]) -> tuple[int, int]:
    """Height and width of the attention layers that a blend looks at."""
    return -(-latents[0] // blend.downsampling), -(-latents[1] // blend.downsampling)


def _send(values: Sequence[int] | np.ndarray, device: torch.device) -> Tensor:
    return send(np.asarray(values, np.int64), device)
