"""The one-row student of the pocket model: told both guidance scales at first, then brought to few steps."""

from __future__ import annotations

import copy

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from ..distill.consistency import Walk, consistency_loss
from ..distill.guidance import Lesson, guidance_loss, usual_ranges
from ..distill.process import Process
from ..distill.student import frozen, grow_student
from ..trainer.batches import Batch
from .loop import Loss, Run
from .parallel import world
from .sizes import Size
from .unet import SCHEDULER, Latents, fit

WALK = Walk()


def train_student(size: Size, teacher: UNet2DConditionModel, data: Latents, run: Run) -> UNet2DConditionModel:
    """Guidance distillation of a copy of the teacher, which needs three rows."""
    torch.manual_seed(run.seed)
    student = grow_student(teacher)
    loss = guidance_loss_on(data, size, student, frozen(teacher, run.device), size.student.batch // world())
    return fit(student, loss, size.student, run)


def train_few(size: Size, teacher: UNet2DConditionModel, data: Latents, run: Run) -> UNet2DConditionModel:
    """Step distillation of a copy of the teacher, which is told the scales."""
    student = copy.deepcopy(teacher).requires_grad_(True)
    loss = consistency_loss_on(data, size, student, frozen(teacher, run.device), size.few.batch // world())
    return fit(student, loss, size.few, run)


def guidance_loss_on(
    data: Latents, size: Size, student: UNet2DConditionModel, teacher: UNet2DConditionModel, count: int
) -> Loss:
    """`guidance_loss` of a batch of so many pairs, as a function of the random generator that draws all of it."""
    lesson = lesson_of(size, data)
    return lambda rng: guidance_loss(student, teacher, lesson, draw_batch(data, count, rng), rng)


def consistency_loss_on(
    data: Latents, size: Size, student: UNet2DConditionModel, teacher: UNet2DConditionModel, count: int
) -> Loss:
    """`consistency_loss`, likewise."""
    lesson = lesson_of(size, data)
    return lambda rng: consistency_loss(student, teacher, lesson, WALK, draw_batch(data, count, rng), rng)


def lesson_of(size: Size, data: Latents) -> Lesson:
    """The pocket model's noise and scales."""
    own = (size.text_guidance, size.image_guidance)
    return Lesson(Process.from_config(SCHEDULER), own, usual_ranges(own), data.scale)


def draw_batch(data: Latents, count: int, rng: torch.Generator) -> Batch:
    """Pairs of cached latents, each read in one of its directions and asked for in one of its phrasings."""
    chosen = torch.randint(len(data.latents), (count,), generator=rng)
    backwards = torch.randint(data.texts.shape[1], (count,), generator=rng)
    phrasing = torch.randint(data.texts.shape[2], (count,), generator=rng)
    pair, each = data.latents[chosen].float(), torch.arange(count)
    return Batch(
        image=pair[each, backwards],
        target=pair[each, 1 - backwards] * data.scale,
        text=data.contexts[data.texts[chosen, backwards, phrasing]].float(),
        null=data.contexts[:1].float(),
        indices=chosen,
    )
