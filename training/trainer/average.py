"""The exponential moving average of the weights, kept beside them: as they are divided among processes, so is it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The average of some parameters, in their order."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = parameters, decay
        self._values: list[Tensor] = [p.detach().clone() for p in parameters]

    def update(self, step: int) -> None:
        """Takes the parameters in after step number `step`: with decay min(decay, (1 + n) / (10 + n))."""
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for value, parameter in zip(self._values, self._parameters, strict=True):
                value.lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The parameters are their average for a while."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def take(self) -> None:
        """Makes the average what the parameters are."""
        with torch.no_grad():
            for value, parameter in zip(self._values, self._parameters, strict=True):
                value.copy_(parameter)

    def _exchange(self) -> None:
        with torch.no_grad():
            for value, parameter in zip(self._values, self._parameters, strict=True):
                held = value.clone()
                value.copy_(parameter)
                parameter.copy_(held)
