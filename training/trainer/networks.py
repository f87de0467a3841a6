"""The networks of a run as accelerate has placed and divided them, and their state as whole tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from ip2p_fast.errors import BadInput, MissingExtra

from .adapters import add_adapters
from .average import Average
from .parts import Parts
from .recipe import Recipe

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
_TRAINED = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
_LOADED = StateDictOptions(full_state_dict=True, strict=False)


class Networks:
    """The UNet that is trained, its average and its optimizer; the frozen parts lie on the same device."""

    def __init__(self, parts: Parts, recipe: Recipe, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        for part in (parts.vae, parts.text_encoder):
            nn.Module.to(part, accelerator.device)
        unet = parts.unet
        unet.requires_grad_(True).train()
        if recipe.lora:
            torch.manual_seed(recipe.seed)  # the adapters' first weights are the same in every process
            add_adapters(unet, recipe.lora, parts.grown)
        if recipe.checkpointing:
            unet.enable_gradient_checkpointing()
        if recipe.compile:
            unet.compile()
        optimizer = _optimizer(recipe)(
            [p for p in unet.parameters() if p.requires_grad],
            lr=recipe.learning_rate,
            betas=(recipe.beta1, recipe.beta2),
            weight_decay=recipe.weight_decay,
        )
        self.unet, self.optimizer = accelerator.prepare(unet, optimizer)
        self.trained = [p for p in self.unet.parameters() if p.requires_grad]
        self.average = Average(self.trained, recipe.ema)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds, whole on the CPU. Every process takes part; the first one's counts."""
        weights = self._weights(_TRAINED)
        with self.average.in_place():
            average = self._weights(_TRAINED)
        moments = get_optimizer_state_dict(self.unet, self.optimizer.optimizer, options=_TRAINED)
        scaler = self.accelerator.scaler
        return {
            "weights": weights,
            "average": average,
            "optimizer": moments,
            "scaler": {} if scaler is None else scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from such a state.

        Raises:
            BadInput: it is of another UNet.
        """
        ours = {name: tuple(tensor.shape) for name, tensor in self._weights(_TRAINED).items()}
        if ours and ours != {name: tuple(tensor.shape) for name, tensor in state["weights"].items()}:
            raise BadInput("the checkpoint is of another model: its UNet has other weights")
        set_model_state_dict(self.unet, dict(state["average"]), options=_LOADED)
        self.average.take()
        set_model_state_dict(self.unet, dict(state["weights"]), options=_LOADED)
        set_optimizer_state_dict(self.unet, self.optimizer.optimizer, dict(state["optimizer"]), options=_LOADED)
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def averaged(self) -> dict[str, Tensor]:
        """The averaged UNet's state, adapters apart, whole on the CPU of the first process."""
        with self.average.in_place():
            return self._weights(_WHOLE)

    def finite(self) -> bool:
        """Whether all weights are numbers, in every process."""
        with torch.no_grad():
            total = sum((p.detach().float().abs().sum() for p in self.trained), start=torch.zeros(()))
        total = total.full_tensor() if hasattr(total, "full_tensor") else total
        return bool(torch.isfinite(total))

    def _weights(self, options: StateDictOptions) -> dict[str, Tensor]:
        # cloned: without a GPU they would be the very tensors that go on being trained
        state: Mapping[str, Any] = get_model_state_dict(self.unet, options=options)
        return {name: tensor.clone() for name, tensor in state.items()}


def accelerator_for(recipe: Recipe, project: Any) -> Accelerator:
    """One process on a CPU or a GPU, or what `accelerate launch` or torchrun started.

    Raises:
        BadInput: fp16 without a GPU, or a tracker that accelerate does not know.
        MissingExtra: the tracker's package is absent.
    """
    gpu = torch.accelerator.is_available()
    if recipe.precision == "fp16" and not gpu:
        raise BadInput("precision fp16 needs a GPU: use bf16, or no")
    if recipe.tracker:
        _require_tracker(recipe.tracker)
    _optimizer(recipe)
    return Accelerator(
        mixed_precision=recipe.precision,
        gradient_accumulation_steps=recipe.accumulation,
        cpu=not gpu,
        log_with=recipe.tracker or None,
        project_dir=project,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def _optimizer(recipe: Recipe) -> Any:
    if not recipe.adam8bit:
        return torch.optim.AdamW
    try:
        import bitsandbytes
    except ImportError as error:
        raise MissingExtra("--adam8bit", "adam8bit") from error
    return bitsandbytes.optim.AdamW8bit


def _require_tracker(name: str) -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(str(kind) for kind in LOGGER_TYPE_TO_CLASS)
    if name not in known:
        raise BadInput(f"there is no tracker {name!r}; accelerate knows {', '.join(known)}")
    if name not in [str(kind) for kind in get_available_trackers()]:
        raise MissingExtra(f"--tracker {name}", name)
