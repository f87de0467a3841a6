"""Which of diffusers' UNet2DConditionModel configurations are in the family that `unet` runs, and which are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ModelError

CONDITIONED_ON = "conditioned_on"
"""The key of a distilled UNet's config.json that says which numbers `time_cond_proj_dim` is for."""
SCALES = ("text_guidance", "image_guidance")


@dataclass(frozen=True)
class UNetConfig:
    """The part of diffusers' UNet2DConditionModel configuration that varies within the family.

    channels     of each level, from full resolution down
    attention    whether each level has transformers, counted as `channels`
    heads        attention heads of each level
    guidance_dim width of the guidance scales' embedding in a distilled model, None in all others
    """

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    heads: tuple[int, ...]
    layers_per_block: int
    transformer_depth: int
    context_dim: int
    norm_groups: int
    norm_eps: float
    guidance_dim: int | None = None

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> UNetConfig:
        """Reads a unet/config.json. Raises ModelError naming the first setting that is outside the family."""
        for key, value in config.items():
            if key in _FIXED and value not in _FIXED[key]:
                raise ModelError(f"UNet config: {key} = {value!r} is not supported (only {_FIXED[key][0]!r})")
        channels = tuple(config["block_out_channels"])
        attention = tuple(_has_attention(kind) for kind in config["down_block_types"])
        if tuple(_has_attention(kind) for kind in config["up_block_types"]) != attention[::-1]:
            raise ModelError("UNet config: up_block_types must mirror down_block_types")
        # diffusers calls the number of heads attention_head_dim in this family, and keeps that name for compatibility.
        heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
        heads = (heads,) * len(channels) if isinstance(heads, int) else tuple(heads)
        if not len(channels) == len(attention) == len(heads):
            raise ModelError(f"UNet config: {len(channels)} levels, but {len(attention)} blocks and {len(heads)} heads")
        for name in ("layers_per_block", "transformer_layers_per_block", "cross_attention_dim"):
            if not isinstance(config.get(name, 1), int):
                raise ModelError(f"UNet config: {name} = {config[name]!r} is not supported (one number for all levels)")
        guidance_dim = config.get("time_cond_proj_dim")
        if guidance_dim is not None and tuple(config.get(CONDITIONED_ON, ())) != SCALES:
            raise ModelError(
                f"UNet config: time_cond_proj_dim = {guidance_dim!r} is supported where {CONDITIONED_ON} is "
                f"{list(SCALES)}, and it is {config.get(CONDITIONED_ON)!r}"
            )
        if guidance_dim is not None and (not isinstance(guidance_dim, int) or guidance_dim < 8 or guidance_dim % 4):
            raise ModelError(f"UNet config: time_cond_proj_dim = {guidance_dim!r} must be a multiple of 4 from 8")
        return cls(
            in_channels=config["in_channels"],
            out_channels=config["out_channels"],
            channels=channels,
            attention=attention,
            heads=heads,
            layers_per_block=config.get("layers_per_block", 2),
            transformer_depth=config.get("transformer_layers_per_block", 1),
            context_dim=config["cross_attention_dim"],
            norm_groups=config.get("norm_num_groups", 32),
            norm_eps=config.get("norm_eps", 1e-5),
            guidance_dim=guidance_dim,
        )


def _has_attention(block_type: str) -> bool:
    kinds = {"DownBlock2D": False, "UpBlock2D": False, "CrossAttnDownBlock2D": True, "CrossAttnUpBlock2D": True}
    if block_type not in kinds:
        raise ModelError(f"UNet config: block type {block_type!r} is not supported (only {', '.join(kinds)})")
    return kinds[block_type]


# Settings of diffusers' UNet2DConditionModel that other families use, with the values this one takes.
_FIXED: dict[str, tuple] = {
    "center_input_sample": (False,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1, 1.0),
    "act_fn": ("silu", "swish"),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "addition_embed_type": (None,),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1.0, 1),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "projection_class_embeddings_input_dim": (None,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
}
