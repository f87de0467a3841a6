"""What the averaged model does on records that it does not train on: its loss, and a sheet of edits."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ip2p_fast.editor import Editor, EditRequest
from ip2p_fast.images import load_image, save_image
from ip2p_fast.samplers import NoiseSchedule

from ..dataset.forms.contact_sheet import draw_sheet
from ..dataset.forms.record import PairRecord
from .batches import Batch, held_out_batches
from .draws import Purpose
from .loss import diffusion_loss
from .parts import Parts
from .publish import trained_parts
from .recipe import Recipe


@dataclass(frozen=True)
class HeldOut:
    """Records for validation and their encoded batches; both may be empty."""

    records: Sequence[PairRecord]
    batches: Sequence[Batch]

    @classmethod
    def of(cls, sources: Sequence[str], parts: Parts, recipe: Recipe) -> HeldOut:
        return cls(*held_out_batches(sources, parts, recipe))

    @torch.no_grad()
    def loss(self, unet: Any, schedule: NoiseSchedule, recipe: Recipe) -> float:
        """The mean over the records, each always with the same noise and timestep."""
        losses = [diffusion_loss(unet, schedule, batch, recipe, Purpose.VALIDATION) for batch in self.batches]
        sizes = [len(batch.indices) for batch in self.batches]
        return sum(float(loss) * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)


def draw_samples(
    held_out: HeldOut, parts: Parts, state: dict[str, Tensor], recipe: Recipe, device: torch.device, path: Path
) -> None:
    """A sheet of the first held-out records, each picture beside what the model makes of it.

    state: of `Networks.averaged`.
    """
    records = held_out.records[: recipe.samples]
    if not records:
        return
    editor = Editor.from_pipeline(trained_parts(parts, state, recipe), device=device.type)
    defaults = {name: value for name, value in (parts.defaults or {}).items() if name.endswith("_guidance")}
    requests = [
        EditRequest(load_image(r.input_image), r.instruction, seed=recipe.seed, size=recipe.resolution, **defaults)
        for r in records
    ]
    edited = [result.images[0] for result in editor.edit_many(requests)]
    drawn = []
    for record, picture in zip(records, edited, strict=True):
        file = io.BytesIO()
        picture.save(file, "PNG")
        drawn.append(replace(record, edited_image=file.getvalue(), similarities=None, p=None, cfg=None))
    save_image(draw_sheet(drawn, [None] * len(drawn)), path)
