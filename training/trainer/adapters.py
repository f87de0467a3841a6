"""Low-rank adapters (Hu et al. 2022) in a UNet, through peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from ip2p_fast.errors import MissingExtra

ADAPTER = "adapter"
_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def add_adapters(unet: UNet2DConditionModel, rank: int, grown: bool) -> None:
    """Puts adapters of this rank beside all attention projections; nothing else is trained from now on.

    grown: beside the first convolution too, which has to learn to see the input picture.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingExtra("training adapters", "train") from error
    targets = [*_ATTENTION, "conv_in"] if grown else _ATTENTION
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), ADAPTER)


def save_adapters(unet: UNet2DConditionModel, folder: Path) -> None:
    """Writes them as pytorch_lora_weights.safetensors, for `load_lora_weights` of diffusers' pipelines."""
    from peft import get_peft_model_state_dict

    layers: dict[str, Any] = get_peft_model_state_dict(unet, adapter_name=ADAPTER)
    StableDiffusionLoraLoaderMixin.save_lora_weights(folder, unet_lora_layers=layers)
