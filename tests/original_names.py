"""Small models under the names of the original's single files: the way back from diffusers' names, written anew."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def unet_names(unet: UNet2DConditionModel) -> dict[str, str]:
    """diffusers' name -> the original's, after "model.diffusion_model."."""
    modules = dict(_ENDS)

    def resnet(ours: str, theirs: str) -> None:
        modules.update({f"{ours}.{a}": f"{theirs}.{b}" for a, b in _RESNET.items()})

    block = 1
    for i, down in enumerate(unet.down_blocks):
        for j in range(len(down.resnets)):
            resnet(f"down_blocks.{i}.resnets.{j}", f"input_blocks.{block}.0")
            modules[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{block}.1"
            block += 1
        if down.downsamplers:
            modules[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{block}.0.op"
            block += 1
    resnet("mid_block.resnets.0", "middle_block.0")
    modules["mid_block.attentions.0"] = "middle_block.1"
    resnet("mid_block.resnets.1", "middle_block.2")
    block = 0
    for i, up in enumerate(unet.up_blocks):
        for j in range(len(up.resnets)):
            resnet(f"up_blocks.{i}.resnets.{j}", f"output_blocks.{block}.0")
            modules[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{block}.1"
            block += 1
        if up.upsamplers:
            place = 2 if hasattr(up, "attentions") else 1
            modules[f"up_blocks.{i}.upsamplers.0.conv"] = f"output_blocks.{block - 1}.{place}.conv"
    return {name: _renamed(name, modules) for name in unet.state_dict()}


def vae_names(vae: AutoencoderKL) -> dict[str, str]:
    """diffusers' name -> the original's, after "first_stage_model."."""
    modules = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    levels = len(vae.encoder.down_blocks)
    for side in ("encoder", "decoder"):
        for end, original in (("conv_in", "conv_in"), ("conv_norm_out", "norm_out"), ("conv_out", "conv_out")):
            modules[f"{side}.{end}"] = f"{side}.{original}"
        for j in range(2):
            _vae_resnet(modules, f"{side}.mid_block.resnets.{j}", f"{side}.mid.block_{j + 1}")
        attention = f"{side}.mid_block.attentions.0"
        for ours, theirs in (
            ("group_norm", "norm"),
            ("to_q", "q"),
            ("to_k", "k"),
            ("to_v", "v"),
            ("to_out.0", "proj_out"),
        ):
            modules[f"{attention}.{ours}"] = f"{side}.mid.attn_1.{theirs}"
    for i in range(levels):
        for j in range(len(vae.encoder.down_blocks[i].resnets)):
            _vae_resnet(modules, f"encoder.down_blocks.{i}.resnets.{j}", f"encoder.down.{i}.block.{j}")
        modules[f"encoder.down_blocks.{i}.downsamplers.0.conv"] = f"encoder.down.{i}.downsample.conv"
        for j in range(len(vae.decoder.up_blocks[i].resnets)):
            _vae_resnet(modules, f"decoder.up_blocks.{i}.resnets.{j}", f"decoder.up.{levels - 1 - i}.block.{j}")
        modules[f"decoder.up_blocks.{i}.upsamplers.0.conv"] = f"decoder.up.{levels - 1 - i}.upsample.conv"
    return {name: _renamed(name, modules) for name in vae.state_dict()}


def single_file(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    text: dict[str, Tensor],
    average: UNet2DConditionModel | None = None,
) -> dict[str, Tensor]:
    """All tensors of a checkpoint; `text` in the original's names already; `average` becomes the EMA."""
    names = unet_names(unet)
    tensors = {f"model.diffusion_model.{names[name]}": tensor for name, tensor in unet.state_dict().items()}
    if average is not None:
        flat = {name: "model_ema.diffusion_model" + original.replace(".", "") for name, original in names.items()}
        tensors |= {flat[name]: tensor for name, tensor in average.state_dict().items()}
        tensors["model_ema.decay"] = torch.tensor(0.9999)
    for name, original in vae_names(vae).items():
        tensor = vae.state_dict()[name]
        # The original's attention is made of 1x1 convolutions.
        is_projection = ".attentions." in name and tensor.ndim == 2
        tensors[f"first_stage_model.{original}"] = tensor[:, :, None, None] if is_projection else tensor
    return {name: tensor.contiguous() for name, tensor in (tensors | text).items()}


def clip(text_encoder: CLIPTextModel) -> dict[str, Tensor]:
    """Stable Diffusion 1: transformers' names as they were then, with the buffer that was saved then."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in text_encoder.state_dict().items()}
    tensors = {f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in state.items()}
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return tensors


def open_clip(text_encoder: CLIPTextModel) -> dict[str, Tensor]:
    """Stable Diffusion 2: OpenCLIP's names, q, k and v in one, and one layer more than is used."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in text_encoder.state_dict().items()}
    layers, width = text_encoder.config.num_hidden_layers, text_encoder.config.hidden_size
    tensors = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": torch.eye(width),
        "logit_scale": torch.tensor(1.0),
    }
    parts = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    parts["self_attn.out_proj"] = "attn.out_proj"
    for layer in range(layers):
        ours, theirs = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            tensors |= {f"{theirs}.{b}.{kind}": state[f"{ours}.{a}.{kind}"] for a, b in parts.items()}
            joined = [state[f"{ours}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            tensors[f"{theirs}.attn.in_proj_{kind}"] = torch.cat(joined)
    unused = nn.LayerNorm(width).state_dict()
    tensors |= {f"transformer.resblocks.{layers}.ln_1.{kind}": tensor for kind, tensor in unused.items()}
    return {f"cond_stage_model.model.{name}": tensor for name, tensor in tensors.items()}


def _vae_resnet(modules: dict[str, str], ours: str, theirs: str) -> None:
    for part in ("norm1", "conv1", "norm2", "conv2"):
        modules[f"{ours}.{part}"] = f"{theirs}.{part}"
    modules[f"{ours}.conv_shortcut"] = f"{theirs}.nin_shortcut"


def _renamed(name: str, modules: dict[str, str]) -> str:
    prefix = max((module for module in modules if name.startswith(f"{module}.")), key=len)
    return modules[prefix] + name.removeprefix(prefix)
