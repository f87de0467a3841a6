"""Weights laid out for a CPU's matrix instructions once, at load, instead of at every call.

PyTorch's convolution and linear layers hand oneDNN plain weights, which it reorders into blocks each time; for the UNet
of Stable Diffusion that moves more bytes than the layer itself. Packed weights also fix the primitive that runs, so a
row is the same bits in a batch of any size, and the primitive adds a residual as it stores. These are the operators of
torch.compile's freezing on CPUs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build and processor have oneDNN's primitives for the dtype."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return dtype == torch.float32


def pack(module: nn.Module) -> nn.Module:
    """Replaces every linear layer and every plain convolution below `module`, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, PackedLinear(child.weight, child.bias))
        elif isinstance(child, nn.Conv2d) and child.padding_mode == "zeros" and not isinstance(child.padding, str):
            setattr(module, name, PackedPointwise(child) if _is_pointwise(child) else PackedConv2d(child))
        else:
            pack(child)
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.clone()  # a view would keep the whole mapped file of weights in memory
    return module


class PackedLinear(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self.bias = None if bias is None else bias.detach().clone()  # as `pack` says

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x [..., in], residual [..., out] or None -> [..., out]"""
        if residual is None:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")


class PackedPointwise(PackedLinear):
    """A 1x1 convolution as the matrix product that it is."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.weight.flatten(1), conv.bias)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x [N, in, H, W], residual [N, out, H, W] or None, channels-last -> [N, out, H, W], channels-last"""
        tokens = None if residual is None else residual.permute(0, 2, 3, 1)
        return super().forward(x.permute(0, 2, 3, 1), tokens).permute(0, 3, 1, 2)


class PackedConv2d(nn.Module):
    """Packed for the size of the pictures it last saw: in float32 the best blocks depend on it, and a primitive that is
    given other blocks than its own can be 60 times slower, so a new size packs again. In bfloat16 one packing does."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.weight = conv.weight.detach()
        self.bias = None if conv.bias is None else conv.bias.detach().clone()
        self.packed_for: tuple[int, ...] | None = None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x [N, in, H, W], residual [N, out, H', W'] or None, channels-last -> [N, out, H', W'], channels-last"""
        size = tuple(x.shape[1:])
        if self.packed_for is None or (self.packed_for != size and x.dtype == torch.float32):
            plain = self.weight if self.packed_for is None else self.weight.to_dense()
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(plain, *self.geometry, [1, *size])
            self.packed_for = size
        layer = (self.weight, self.bias, *self.geometry)
        if residual is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *layer, "none", [], "")
        return torch.ops.mkldnn._convolution_pointwise.binary(x, residual, *layer, "add", None, None, [], "")


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
