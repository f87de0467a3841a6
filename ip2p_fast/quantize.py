"""A UNet in 8 bits: the linear layers of its transformers and the 3x3 convolutions of its residual blocks.

Weights at load; tokens as they come, and feature maps by the range that their norm's weights tell. Other convolutions
(the first, the last, those that change the size or the width) stay as they are. So do the layers of the time embedding,
which see one row an edit, and the text's keys and values, made once an edit.
"""

from __future__ import annotations

import torch
from torch import nn

from .errors import BadInput
from .layers import Linear
from .quantized_conv import QuantizedConv2d, QuantizedGroupNorm
from .quantized_linear import QuantizedLinear
from .transformer import Transformer, TransformerBlock
from .unet import ResnetBlock, UNet

KINDS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
_FP8_CAPABILITY = (8, 9)  # the first of NVIDIA's chips that multiply e4m3


def quantize_unet(unet: UNet, kind: str) -> UNet:
    """Puts 8-bit layers in the place of the UNet's own, in place; of a UNet on its device, fused.

    Raises:
        BadInput: another word than int8 or fp8, or fp8 on a GPU that does not multiply it.
    """
    if kind not in KINDS:
        raise BadInput(f"quantize is {kind!r}: choose one of {', '.join(KINDS)}")
    _check_device(unet.conv_in.weight.device, kind)
    for module in unet.modules():
        if isinstance(module, Transformer):
            _replace(module, KINDS[kind], "proj_in", "proj_out")
        elif isinstance(module, TransformerBlock):
            _quantize_transformer(module, KINDS[kind])
        elif isinstance(module, ResnetBlock):
            _quantize_resnet(module, KINDS[kind])
    return unet


def _quantize_resnet(block: ResnetBlock, dtype: torch.dtype) -> None:
    for norm, conv in (("norm1", "conv1"), ("norm2", "conv2")):
        quantized = QuantizedGroupNorm(getattr(block, norm), dtype)
        setattr(block, conv, QuantizedConv2d(getattr(block, conv), quantized))
        setattr(block, norm, quantized)


def _quantize_transformer(block: TransformerBlock, dtype: torch.dtype) -> None:
    _replace(block.attn1, dtype, "to_qkv", "to_q", "to_k", "to_v")
    _replace(block.attn2, dtype, "to_q")  # not to_k and to_v: the text's
    _replace(block.attn1.to_out, dtype, "0")
    _replace(block.attn2.to_out, dtype, "0")
    _replace(block.ff.net[0], dtype, "proj")
    _replace(block.ff.net, dtype, "2")
    for norm in (block.norm1, block.norm2, block.norm3):
        norm.quantize = dtype


def _replace(parent: nn.Module, dtype: torch.dtype, *names: str) -> None:
    for name in names:
        layer = getattr(parent, name, None)
        if isinstance(layer, Linear):
            setattr(parent, name, QuantizedLinear(layer.weight, layer.bias, dtype))


def runs_on(device: torch.device, kind: str) -> bool:
    """Whether the device computes with this kind; a CPU computes all, slowly."""
    return kind != "fp8" or device.type != "cuda" or torch.cuda.get_device_capability(device) >= _FP8_CAPABILITY


def _check_device(device: torch.device, kind: str) -> None:
    if not runs_on(device, kind):
        raise BadInput(
            f"fp8 needs a GPU of compute capability {'.'.join(map(str, _FP8_CAPABILITY))} or more, and"
            f" {torch.cuda.get_device_name(device)} has less: choose int8"
        )
