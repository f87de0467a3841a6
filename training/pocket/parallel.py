"""Data parallelism: one process a core or a GPU, gradients averaged once a step.

`torchrun --nproc-per-node 2 -m ip2p_fast.cli train pocket unet` is all it takes. On cores that other work shares
it is also much faster than two threads: those meet at a barrier in every operation, two processes once a step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed


def join() -> None:
    """Joins the other processes when torchrun started this one; does nothing otherwise."""
    if "WORLD_SIZE" in os.environ and not distributed.is_initialized():
        distributed.init_process_group("gloo" if not torch.cuda.is_available() else "nccl")
        if torch.cuda.is_available():
            torch.cuda.set_device(rank())


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces every gradient by its mean over the processes, in a single exchange."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    total(gradients)
    torch._foreach_div_(gradients, world())


def total(tensors: list[Tensor]) -> None:
    """Replaces every tensor by its sum over the processes, in a single exchange."""
    if world() == 1:
        return
    flat = torch._utils._flatten_dense_tensors(tensors)
    distributed.all_reduce(flat)
    for tensor, whole in zip(tensors, torch._utils._unflatten_dense_tensors(flat, tensors), strict=True):
        tensor.copy_(whole)


def agree(value: float, device: str) -> float:
    """The first process's value, for decisions that all must take alike."""
    if world() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.broadcast(shared, 0)
    return float(shared)
