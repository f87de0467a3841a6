"""Muon: momentum whose every update is a near-orthogonal matrix, so that rare directions are learnt like common ones.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the scale that lets it share AdamW's
learning rate is Liu et al. 2025, "Muon is scalable for LLM training".
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .parallel import rank, total, world

# of the odd polynomial that pushes every singular value towards 1, whatever it was
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_RMS_OF_ADAM = 0.2


class Muon(torch.optim.Optimizer):
    """For parameters of two or more dimensions; a convolution's kernel counts as one matrix [out, height * width * in].

    Under torchrun every process orthogonalises its share of the matrices; the gradients must be the same in all.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # a closure is not of use here
        for group in self.param_groups:
            parameters, momentum = group["params"], group["momentum"]
            for p in parameters:
                if p not in self.state:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            averages = [self.state[p]["momentum"] for p in parameters]
            gradients = [p.grad for p in parameters]
            torch._foreach_lerp_(averages, gradients, 1 - momentum)
            updates = [torch.zeros_like(p) for p in parameters]
            for i in range(rank(), len(parameters), world()):
                ahead = _as_matrix(averages[i].lerp(gradients[i], 1 - momentum))
                scale = _RMS_OF_ADAM * math.sqrt(max(ahead.shape))
                _as_matrix(updates[i]).copy_(orthogonal(ahead)).mul_(scale)
            total(updates)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix [m, n] with all singular values brought near 1 (0.7 to 1.2): bf16 Newton-Schulz."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(torch.bfloat16, memory_format=torch.contiguous_format)
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.T if tall else x


def _as_matrix(tensor: Tensor) -> Tensor:
    """A view [out, the rest]. A channels-last kernel stays as it lies: `orthogonal` is the same in any order."""
    return (tensor.movedim(1, -1) if tensor.is_contiguous(memory_format=torch.channels_last) else tensor).flatten(1)
