"""What the operators' checks have in common: each raises BadInput naming operator, argument, what it is and must be."""

from __future__ import annotations

import torch
from torch import Tensor

from ip2p_fast.errors import BadInput

EIGHT_BITS = (torch.int8, torch.float8_e4m3fn)


def floating(operator: str, name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point() or tensor.dtype.itemsize < 2:
        raise BadInput(f"{operator}: {name} is {tensor.dtype}; it must be float32, bfloat16 or float16")


def alike(operator: str, name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.dtype != other.dtype:
        raise BadInput(f"{operator}: {name} is {tensor.dtype}, {other_name} is {other.dtype}; they must be the same")
    if tensor.device != other.device:
        raise BadInput(
            f"{operator}: {name} is on {tensor.device}, {other_name} on {other.device}; move both to one device"
        )


def shaped(operator: str, name: str, tensor: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise BadInput(f"{operator}: {name} has shape {list(tensor.shape)}; x asks for {list(shape)}")
    if tensor.device != x.device:
        raise BadInput(f"{operator}: {name} is on {tensor.device}, x on {x.device}; move both to one device")


def eight_bits(operator: str, name: str, dtype: torch.dtype) -> None:
    if dtype not in EIGHT_BITS:
        raise BadInput(f"{operator}: {name} is {dtype}; it must be torch.int8 or torch.float8_e4m3fn")
