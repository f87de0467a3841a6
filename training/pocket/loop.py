"""The training loop that every stage shares: seeded step by step, resumable, with an averaged copy of the weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ip2p_fast.errors import BadInput

from .muon import Muon
from .parallel import agree, average_gradients, rank
from .sizes import Stage

Loss = Callable[[torch.Generator], Tensor]
"""Draws its own batch from the generator and returns a scalar. Same generator state, same loss."""


# seconds
_LONGEST_STEP = 30.0


@dataclass(frozen=True)
class Run:
    """How a stage is run, whatever it trains.

    compile: have torch.compile fuse the network, where the stage supports it (the UNet): minutes to start, then faster.
    minutes: when given, the learning rate decays over this time instead of `Stage.steps`, and training ends with it.
    report: called with (step, share of training done, loss averaged since the last call).
    """

    checkpoint: Path
    device: str = "cpu"
    seed: int = 0
    resume: bool = False
    minutes: float | None = None
    compile: bool = False
    save_every: float = 120.0
    report: Callable[[int, float, float], None] = lambda step, done, loss: None


def train(model: nn.Module, loss: Loss, stage: Stage, run: Run) -> dict[str, Tensor]:
    """Trains the parameters of `model` and returns their exponential moving average (fp32, by name, on the CPU).

    Everything random in step n comes from a generator seeded by (seed, n), so a run that was interrupted and resumed
    takes the same steps as one that was not. Under torchrun each process draws its own share of the batch, and the
    gradients are averaged. The decay of the average at step n is min(ema, (1 + n) / (10 + n)), as in the reference
    implementation. Arithmetic is bf16 autocast.

    Raises:
        BadInput: the loss is no longer finite, or the checkpoint to resume from is of another model.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizers = _optimizers(model, stage, run.device)
    average = {name: p.detach().clone() for name, p in parameters.items()}
    first, elapsed = _load(run, parameters, average, optimizers) if run.resume and run.checkpoint.exists() else (0, 0.0)

    now = saved = time.monotonic()
    total = torch.zeros((), device=run.device)
    since = 0
    for step in range(first, stage.steps if run.minutes is None else 2**31):
        before, now = now, time.monotonic()
        # a process that was paused, or a machine that slept, has not trained in that time
        elapsed += min(now - before, _LONGEST_STEP)
        done = step / stage.steps if run.minutes is None else agree(elapsed / (60 * run.minutes), run.device)
        if done >= 1:
            break
        rate = stage.learning_rate * min(1.0, (step + 1) / stage.warmup) * 0.5 * (1 + math.cos(math.pi * done))
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        with torch.autocast(torch.device(run.device).type, torch.bfloat16):
            value = loss(step_generator(run.seed, step, rank()))
        model.zero_grad(set_to_none=True)
        value.backward()
        average_gradients(parameters.values())
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        decay = min(stage.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in parameters.values()], 1 - decay)
        total += value.detach()
        since += 1
        if since == 50 or step + 1 == stage.steps:
            mean = float(total) / since
            if not math.isfinite(mean):
                raise BadInput(f"the loss is {mean} near step {step}: lower the learning rate {stage.learning_rate}")
            run.report(step + 1, done, mean)
            total.zero_()
            since = 0
        if now - saved > run.save_every:
            _save(run, step + 1, elapsed, parameters, average, optimizers)
            saved = now
    else:
        step = stage.steps
    _save(run, step, elapsed, parameters, average, optimizers)
    return {name: value.float().cpu() for name, value in average.items()}


def step_generator(seed: int, step: int, process: int = 0) -> torch.Generator:
    """The source of everything random in one step: on the CPU, so that it is the same on every device."""
    # mixed, because the generator keeps only 32 bits of what it is given
    mixed = np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]))


def load_average(model: nn.Module, average: dict[str, Tensor]) -> None:
    """Puts averaged weights into the model they were trained in."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in average:
                parameter.copy_(average[name])


def _optimizers(model: nn.Module, stage: Stage, device: str) -> list[torch.optim.Optimizer]:
    """One optimizer, or two: Muon is for matrices between hidden layers, not for the first, the last, or a bias."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    hidden = [p for p in parameters if p.ndim > 1][1:-1] if stage.muon else []
    rest = [p for p in parameters if all(p is not matrix for matrix in hidden)]
    adam = torch.optim.AdamW(
        rest, lr=0.0, betas=(0.9, 0.99), weight_decay=0.01, fused=torch.device(device).type == "cpu"
    )
    return [adam, Muon(hidden)] if hidden else [adam]


def _save(
    run: Run,
    step: int,
    elapsed: float,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizers: list[torch.optim.Optimizer],
) -> None:
    if rank() != 0:
        return
    run.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = run.checkpoint.with_suffix(".partial")
    weights = {name: p.detach() for name, p in parameters.items()}
    states = [optimizer.state_dict() for optimizer in optimizers]
    torch.save(
        {"step": step, "elapsed": elapsed, "weights": weights, "average": average, "optimizers": states}, partial
    )
    partial.replace(run.checkpoint)


def _load(
    run: Run, parameters: dict[str, nn.Parameter], average: dict[str, Tensor], optimizers: list[torch.optim.Optimizer]
) -> tuple[int, float]:
    state = torch.load(run.checkpoint, map_location=run.device, weights_only=True)
    if {n: p.shape for n, p in parameters.items()} != {n: p.shape for n, p in state["weights"].items()}:
        raise BadInput(f"{run.checkpoint} holds another model; remove it or train without --resume")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state["weights"][name])
            average[name].copy_(state["average"][name])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"]), float(state["elapsed"])
