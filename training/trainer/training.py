"""The training of an edit model, from the first batch to the folder of the finished model."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError

from ip2p_fast.errors import BadInput

from .batches import Batches, make_batches, merged
from .checkpoints import checkpoints_in, read_facts, read_state, save_checkpoint, to_resume
from .lanes import order_of
from .loss import diffusion_loss
from .networks import Networks, accelerator_for
from .parts import Parts, load_parts
from .publish import publish
from .recipe import DTYPES, Recipe
from .throughput import Meter, device_rate, training_flops
from .validation import HeldOut, draw_samples

RUN = "training"
"""Folder of the output for all that is not the model: checkpoints/, log.jsonl, samples/, the tracker's files."""
LOG = "log.jsonl"
_REPORT_EVERY = 10
_RECENT = 100


@dataclass(frozen=True)
class Job:
    """What to train, on what, where to, and how. resume: "auto", a checkpoint's folder, or "" for a new run."""

    model: str
    data: tuple[str, ...]
    out: Path
    recipe: Recipe
    resume: str = ""

    @property
    def run(self) -> Path:
        return self.out / RUN


def train(job: Job, watch: Callable[[str, float, str], None] = lambda stage, done, line: None) -> dict[str, Any]:
    """Trains, keeps checkpoints, writes the model and returns its figures. Every process of a launch calls it alike.

    Args:
        watch: called with ("train", share done, a line).

    Raises:
        BadInput: what is wrong with the model, the data, the recipe or a checkpoint to resume, before training begins;
            while training, a loss that is no number, data that cannot be used with `strict`, a disk that is full.
        MissingExtra: a package that the recipe asks for is absent.
    """
    recipe = job.recipe
    accelerator = accelerator_for(recipe, job.run)
    latest = to_resume(job.run / "checkpoints", job.resume)
    if latest is None and (job.out / "model_index.json").exists():
        raise BadInput(f"{job.out} holds a model: choose another output")
    order = order_of(list(job.data), recipe)
    parts = load_parts(job.model, recipe.prediction)
    facts = {
        "recipe": asdict(recipe),
        "data": [Path(piece).name for piece in order.pieces],
        "model": _identity(parts),
        "samples_a_step": recipe.batch * recipe.accumulation * accelerator.num_processes,
    }
    found = None if latest is None else read_facts(latest, recipe, facts)
    try:
        job.run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write {job.run}: {error.strerror or error}") from error
    networks = Networks(parts, recipe, accelerator)
    batches = make_batches(job.data, parts, recipe, accelerator.process_index, accelerator.num_processes)
    held_out = HeldOut.of(job.data, parts, recipe)
    first = 0
    if latest is not None and found is not None:
        networks.restore(read_state(latest))
        batches.restore(found["stream"])
        first = found["step"]
    trainer = _Trainer(job, parts, networks, batches, held_out, facts, watch)
    figures = trainer.run(first)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return figures


class _Trainer:
    """The loop and what hangs on it."""

    def __init__(
        self,
        job: Job,
        parts: Parts,
        networks: Networks,
        batches: Batches,
        held_out: HeldOut,
        facts: dict[str, Any],
        watch: Callable[[str, float, str], None],
    ) -> None:
        self.job, self.recipe, self.parts, self.networks = job, job.recipe, parts, networks
        self.batches, self.held_out, self.facts, self.watch = batches, held_out, facts, watch
        self.accelerator = networks.accelerator
        self.main = self.accelerator.is_main_process
        self.schedule = parts.schedule
        self.per_step = facts["samples_a_step"]
        latents = self.recipe.resolution // parts.factor
        rate = device_rate(self.accelerator.device, DTYPES[self.recipe.precision]) * self.accelerator.num_processes
        self.meter = Meter(self.per_step, training_flops(dict(parts.unet.config), latents, latents), rate)
        self.figures: dict[str, Any] = {}

    def run(self, first: int) -> dict[str, Any]:
        """The steps from number `first` on, then the finished model."""
        recipe, meter = self.recipe, self.meter
        losses: deque[float] = deque(maxlen=_RECENT)
        if recipe.tracker:
            self.accelerator.init_trackers("ip2p-fast", asdict(recipe))
        if self.main:
            _rewind(self.job.run / LOG, first)
        stream = iter(self.batches)
        for step in range(first + 1, recipe.steps + 1):
            last = step == recipe.steps
            rate = learning_rate(recipe, step - 1)
            losses.append(self._step(stream, step - 1, rate))
            meter.step()
            entry = {"loss": losses[-1], "learning_rate": rate}
            with meter.paused():
                entry |= self._look(step, last)
            if step % _REPORT_EVERY == 0 or last:
                entry |= meter.taken()
            with meter.paused():
                self._tell(step, entry)
                if step % recipe.save_every == 0 or last:
                    self._save(step)  # after the log, which then has all steps of the checkpoint
        return self._finish(list(losses))

    def _step(self, stream: Any, step: int, rate: float) -> float:
        """One step of the optimizer; the mean loss over all processes."""
        recipe, networks, accelerator = self.recipe, self.networks, self.accelerator
        for group in networks.optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=accelerator.device)
        for _ in range(recipe.accumulation):
            batch = next(stream)
            with accelerator.accumulate(networks.unet):
                loss = diffusion_loss(networks.unet, self.schedule, batch, recipe)
                accelerator.backward(loss)
            total += loss.detach() / recipe.accumulation
        mean = float(accelerator.reduce(total, "mean"))
        if not math.isfinite(mean):
            raise BadInput(f"the loss is {mean} at step {step + 1}: {self._left()}; lower the learning rate {rate:g}")
        if recipe.clip:
            accelerator.clip_grad_norm_(networks.trained, recipe.clip)
        networks.optimizer.step()
        networks.optimizer.zero_grad()
        networks.average.update(step)
        return mean

    def _look(self, step: int, last: bool) -> dict[str, float]:
        """The validation loss and the sheet of edits, where they are due."""
        recipe, found = self.recipe, {}
        if self.held_out.records and recipe.validate_every and (step % recipe.validate_every == 0 or last):
            with self.networks.average.in_place():
                found["validation_loss"] = self.held_out.loss(self.networks.unet, self.schedule, recipe)
        if self.held_out.records and recipe.samples and recipe.sample_every and step % recipe.sample_every == 0:
            state = self.networks.averaged()
            if self.main:
                folder = self.job.run / "samples"
                folder.mkdir(exist_ok=True)
                device = self.accelerator.device
                draw_samples(self.held_out, self.parts, state, recipe, device, folder / f"step-{step:08d}.png")
        return found

    def _tell(self, step: int, entry: dict[str, float]) -> None:
        """A step's figures to the log, the tracker and whoever watches."""
        self.figures |= {name: value for name, value in entry.items() if name not in ("loss", "learning_rate")}
        if self.recipe.tracker:
            self.accelerator.log(entry, step)
        if not self.main:
            return
        with (self.job.run / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, **entry}) + "\n")
        if "samples_per_second" in entry:
            speed = f"{entry['samples_per_second']:.3g} samples/s, {entry['share_of_flops']:.0%} of the FLOP/s"
            self.watch("train", step / self.recipe.steps, f"step {step}, loss {entry['loss']:.4f}, {speed}")

    def _save(self, step: int) -> None:
        if not self.networks.finite():
            raise BadInput(f"weights are no longer numbers at step {step}: {self._left()}; lower the learning rate")
        stream = merged(gather_object([self.batches.state()]))
        state = self.networks.state()
        if self.main:
            folder = self.job.run / "checkpoints"
            save_checkpoint(folder, step, {**self.facts, "stream": stream}, state, self.recipe.keep)
        self.accelerator.wait_for_everyone()

    def _left(self) -> str:
        there = checkpoints_in(self.job.run / "checkpoints")
        return f"the last checkpoint is {there[-1]}" if there else "there is no checkpoint yet"

    def _finish(self, losses: list[float]) -> dict[str, Any]:
        state = self.networks.averaged()
        skipped = {name for found in gather_object([list(self.batches.skipped)]) for name in found}
        figures = {"steps": self.recipe.steps, "samples": self.recipe.steps * self.per_step, **self.figures}
        if losses:
            figures["training_loss"] = sum(losses) / len(losses)
        figures |= {"processes": self.accelerator.num_processes, "skipped": len(skipped)}
        if self.main:
            try:
                publish(self.job.out, self.parts, state, self.recipe, self.job.model, self.job.data, figures)
            except (OSError, SafetensorError) as error:
                raise BadInput(f"cannot write the model to {self.job.out} ({error}); {self._left()}") from error
        return figures


def learning_rate(recipe: Recipe, step: int) -> float:
    """Of step number `step`, counted from 0: linear warm-up, then constant, or half a cosine to zero at the last."""
    rate = recipe.learning_rate * min(1.0, (step + 1) / max(1, recipe.warmup))
    return rate if recipe.schedule == "constant" else rate * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def _identity(parts: Parts) -> str:
    """Tells models apart by the shape of their UNets."""
    config = parts.unet.config
    widths = "-".join(map(str, config["block_out_channels"]))
    return f"UNet of widths {widths} and text of {config['cross_attention_dim']}, {parts.schedule.prediction}"


def _rewind(path: Path, first: int) -> None:
    """Leaves in a log the steps up to `first`: those after it are to be taken again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() and first else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= first]
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
