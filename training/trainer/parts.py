"""The networks that a training starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from ip2p_fast.checkpoints import EDIT_CHANNELS, SHIPPED, TEXT_TO_IMAGE_CHANNELS
from ip2p_fast.components import build_text_encoder, build_vae
from ip2p_fast.errors import BadInput, ModelError
from ip2p_fast.hub import download
from ip2p_fast.model_files import find_weights, read_json, read_tensors
from ip2p_fast.samplers import NoiseSchedule


@dataclass(frozen=True)
class Parts:
    """A model's networks in float32 on the CPU; all but the UNet are frozen.

    grown: the UNet took 4 channels, and has been given 4 more with weights of zero.
    defaults: the model's own settings of an edit, from its defaults.json; {} for most.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: EulerAncestralDiscreteScheduler
    grown: bool = False
    defaults: dict[str, Any] | None = None

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise process."""
        return NoiseSchedule.from_config(self.scheduler.config)

    @property
    def factor(self) -> int:
        """Pixels of a side to one latent."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    def multiple(self) -> int:
        """Sides of pictures are multiples of this, so that the UNet can halve the latents at each of its levels."""
        return self.factor * 2 ** (len(self.unet.config["block_out_channels"]) - 1)


def load_parts(model: str, prediction: str = "") -> Parts:
    """Loads a shipped model, a folder in Hugging Face layout or a hub id.

    A text-to-image model becomes an edit model: its first convolution grows by 4 channels of zeros, for the input
    picture's latents (InstructPix2Pix, section 3.2). One that takes 8 channels is kept as it is.

    Args:
        prediction: "epsilon" or "v_prediction" in place of what the model's scheduler says.

    Raises:
        ModelError: it is not there, incomplete, damaged, distilled, or of another architecture.
    """
    folder = _folder(model)
    config = read_json(folder / "unet" / "config.json")
    channels = config.get("in_channels")
    if channels not in (TEXT_TO_IMAGE_CHANNELS, EDIT_CHANNELS):
        raise ModelError(f"{model}: its UNet takes {channels} channels; training starts from one of 4 or of 8")
    if config.get("time_cond_proj_dim") is not None:
        raise ModelError(f"{model} is distilled: it is told its guidance scales; train the model it was made from")
    try:
        parts = Parts(
            unet=UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32),
            vae=build_vae(read_json(folder / "vae" / "config.json"), *_tensors(folder / "vae")),
            text_encoder=build_text_encoder(
                read_json(folder / "text_encoder" / "config.json"), *_tensors(folder / "text_encoder")
            ),
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            scheduler=_scheduler(folder, prediction),
            defaults=read_json(folder / "defaults.json") if (folder / "defaults.json").is_file() else {},
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if isinstance(error, BadInput):
            raise
        raise ModelError(f"{model} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    if parts.unet.config["cross_attention_dim"] != parts.text_encoder.config.hidden_size:
        raise ModelError(
            f"{model}: the UNet takes text of width {parts.unet.config['cross_attention_dim']}, its text encoder gives "
            f"{parts.text_encoder.config.hidden_size}"
        )
    return replace(parts, grown=True) if grow(parts.unet) else parts


def grow(unet: UNet2DConditionModel) -> bool:
    """Gives a UNet of 4 channels 4 more, with weights of zero, in place; one of 8 is left alone. Returns which."""
    old = unet.conv_in
    if old.in_channels == EDIT_CHANNELS:
        return False
    new = nn.Conv2d(EDIT_CHANNELS, old.out_channels, old.kernel_size, old.stride, old.padding)  # type: ignore[arg-type]
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        assert new.bias is not None and old.bias is not None
        new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=EDIT_CHANNELS)
    return True


def _folder(model: str) -> Path:
    if (folder := SHIPPED.get(model, Path(model).expanduser())).is_dir():
        if not (folder / "unet").is_dir():
            raise ModelError(f"{folder} is no model in Hugging Face layout: it has no folder unet")
        return folder
    if folder.exists() or model.count("/") != 1:
        raise ModelError(f"{model} is no folder in Hugging Face layout, no hub id owner/name and none of the shipped")
    return download(model)


def _tensors(folder: Path) -> tuple[dict[str, Tensor], str]:
    """A network's weights in float32, and the file they are from."""
    file = find_weights(folder, "diffusion_pytorch_model", "model", "pytorch_model")
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in read_tensors(file).items()}
    return tensors, str(file)


def _scheduler(folder: Path, prediction: str) -> EulerAncestralDiscreteScheduler:
    """Euler's, as the paper samples, with the noise of the model's own."""
    config = dict(read_json(folder / "scheduler" / "scheduler_config.json"))
    if prediction:
        config["prediction_type"] = prediction
    NoiseSchedule.from_config(config)  # refuses what is not supported
    return EulerAncestralDiscreteScheduler.from_config(config)
