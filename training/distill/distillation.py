"""The distillation of an edit model, from its first batch to the folder of the finished student."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ip2p_fast.editor import DEFAULTS
from ip2p_fast.errors import BadInput

from ..pocket.loop import Loss, Run
from ..pocket.parallel import join, rank, world
from ..pocket.sizes import Stage
from ..pocket.unet import fit
from ..trainer.batches import make_batches
from ..trainer.parts import Parts
from ..trainer.recipe import Recipe
from .consistency import Walk, consistency_loss
from .guidance import Lesson, guidance_loss, usual_ranges
from .model import load_model, write_student
from .process import Process
from .student import frozen, grow_student

STAGES = {"guidance": ("guidance",), "consistency": ("consistency",), "both": ("guidance", "consistency")}
"""Choices of the command, and the stages that each is."""
RUN = "training"
"""Folder of the output for the checkpoints."""


@dataclass(frozen=True)
class Job:
    """What to distil, on which pairs, where to, and how.

    recipe  data, and for each stage steps, batch (of one process), learning rate, warm-up, average; its seed
    ranges  of s_T and s_I that the student is to know; None: `usual_ranges` of the model's own
    """

    model: str
    data: tuple[str, ...]
    out: Path
    stage: str
    recipe: Recipe
    ranges: tuple[tuple[float, float] | None, tuple[float, float] | None] = (None, None)
    walk: Walk = Walk()
    device: str = "cpu"
    resume: bool = False

    def checkpoint(self, stage: str) -> Path:
        return self.out / RUN / f"{stage}.pt"


def distill(job: Job, watch: Callable[[str, float, str], None] = lambda stage, done, line: None) -> dict[str, Any]:
    """Distils, keeps checkpoints, writes the student and returns its figures. Every process of torchrun calls it alike.

    The figures are each stage's steps and its last mean loss, which a stage that was done before has not.

    Args:
        watch: called with (stage, share done, a line).

    Raises:
        BadInput: an unknown stage, a model that cannot be distilled, data that cannot be read, a value out of its
            range, an output that is taken, before work starts; while at work, a loss that is no number.
    """
    if job.stage not in STAGES:
        raise BadInput(f"there is no stage {job.stage!r}: choose one of {', '.join(STAGES)}")
    stages = STAGES[job.stage]
    _require_free(job, stages)
    join()
    parts = load_model(job.model, stages)
    lesson = lesson_of(parts, job.ranges)
    try:
        (job.out / RUN).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write {job.out}: {error.strerror or error}") from error
    for part in (parts.vae, parts.text_encoder):
        nn.Module.to(part, job.device)
    figures: dict[str, Any] = {}
    for stage in stages:
        figures[f"{stage}_steps"] = job.recipe.steps

        def report(step: int, done: float, loss: float, stage: str = stage) -> None:
            figures[f"{stage}_loss"] = loss
            if rank() == 0:
                watch(stage, done, f"step {step}, loss {loss:.4f}")

        parts = _taught(stage, parts, lesson, job, report)
    if rank() == 0:
        write_student(parts, job.out, job.walk.most if "consistency" in stages else None)
    return figures


def lesson_of(parts: Parts, ranges: tuple[tuple[float, float] | None, tuple[float, float] | None]) -> Lesson:
    """The noise and the scales of a model.

    Raises:
        BadInput: a range that is empty, negative, or without the model's own scale.
    """
    defaults = {**DEFAULTS, **(parts.defaults or {})}
    names = ("text_guidance", "image_guidance")
    own = (float(defaults[names[0]]), float(defaults[names[1]]))
    chosen = []
    for name, value, given, usual in zip(names, own, ranges, usual_ranges(own), strict=True):
        low, high = given or usual
        if not 0 <= low <= value <= high < math.inf:  # written so that NaN fails too
            raise BadInput(
                f"--{name.replace('_', '-')} is {low:g}:{high:g}: a range from 0 up is needed, with the model's own "
                f"{value:g} in it"
            )
        chosen.append((low, high))
    process, scale = Process.from_config(parts.scheduler.config), float(parts.vae.config["scaling_factor"])
    return Lesson(process, own, (chosen[0], chosen[1]), scale)


def _taught(stage: str, parts: Parts, lesson: Lesson, job: Job, report: Callable[[int, float, float], None]) -> Parts:
    """The parts with a student of one stage in their UNet's place."""
    recipe = job.recipe
    torch.manual_seed(recipe.seed)
    student = grow_student(parts.unet) if stage == "guidance" else copy.deepcopy(parts.unet).requires_grad_(True)
    if recipe.checkpointing:
        student.enable_gradient_checkpointing()
    teacher = frozen(parts.unet, job.device)
    run = Run(job.checkpoint(stage), job.device, recipe.seed, job.resume, compile=recipe.compile, report=report)
    first = _steps_done(run)
    batches = make_batches(job.data, parts, recipe, rank(), world())
    batches.restore({"position": first * recipe.batch * world(), "marks": {}})
    stream = iter(batches)

    def loss(rng: torch.Generator) -> torch.Tensor:
        if stage == "guidance":
            return guidance_loss(student, teacher, lesson, next(stream), rng)
        return consistency_loss(student, teacher, lesson, job.walk, next(stream), rng)

    row = Stage(recipe.steps, recipe.batch, recipe.learning_rate, max(1, recipe.warmup), recipe.ema)
    return replace(parts, unet=fit(student, _finite(loss, first, run), row, run))


def _finite(loss: Loss, first: int, run: Run) -> Loss:
    """The same loss, which stops the training in the step in which it is no number, before weights change."""
    step = first

    def checked(rng: torch.Generator) -> torch.Tensor:
        nonlocal step
        value = loss(rng)
        step += 1
        if not torch.isfinite(value.detach()):
            kept = f"--resume goes on from {run.checkpoint}" if run.checkpoint.exists() else "nothing was kept yet"
            raise BadInput(f"the loss is {float(value.detach())} at step {step}: lower the learning rate; {kept}")
        return value

    return checked


def _require_free(job: Job, stages: tuple[str, ...]) -> None:
    if (job.out / "model_index.json").exists():
        raise BadInput(f"{job.out} holds a model: choose another output")
    there = [job.checkpoint(stage) for stage in stages if job.checkpoint(stage).exists()]
    if there and not job.resume:
        raise BadInput(f"{there[0]} is of an earlier run: --resume goes on from it; or choose another output")


def _steps_done(run: Run) -> int:
    """Of the checkpoint that `run` goes on from: where its data stands follows from it."""
    if not (run.resume and run.checkpoint.exists()):
        return 0
    return int(torch.load(run.checkpoint, map_location="cpu", weights_only=True, mmap=True)["step"])
