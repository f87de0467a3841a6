"""The UNet through torch.compile, with the seconds that compiling takes told apart."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from ..unet import UNet

# Further sets of shapes run as they are: each costs minutes at Stable Diffusion's size.
SHAPES_COMPILED = 16


class CompiledUNet:
    """`UNet.forward` compiled whole for each of the first sets of shapes; our operators stay what they are within it.

    seconds  spent so far in first calls, which compile
    """

    def __init__(self, unet: UNet, **options: Any) -> None:
        """options: of torch.compile; inductor takes no CUDA graphs by default, as the backend captures whole steps."""
        # of all UNets of the process, which share the code that is compiled
        config = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, 8 * SHAPES_COMPILED)
        self._unet = unet
        self._compiled = torch.compile(unet, fullgraph=True, dynamic=False, **options)
        self._known: set[tuple[int, ...]] = set()
        self.seconds = 0.0

    def __call__(self, latents: Tensor, *rest: Any) -> Tensor:
        shape = tuple(latents.shape)
        if shape in self._known:
            return self._compiled(latents, *rest)
        if len(self._known) == SHAPES_COMPILED:
            return self._unet(latents, *rest)
        began = time.perf_counter()
        prediction = self._compiled(latents, *rest)
        self.seconds += time.perf_counter() - began
        self._known.add(shape)
        return prediction
