"""Arrays to a device and back, on a GPU through page-locked memory, so that copies are queued like other work."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def send(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on a device. A GPU's copy is only queued; PyTorch keeps the page-locked memory until it is done."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def fetching(tensor: Tensor, copies: torch.cuda.Stream | None) -> Callable[[], np.ndarray]:
    """Begins to copy a tensor to the host and returns what waits for that and has the values.

    copies: a stream of the tensor's GPU, beside the one that computes: that goes on while the copy waits for the work
    that is queued by now. None on a CPU.
    """
    if copies is None:
        return tensor.numpy
    computed, copied = torch.cuda.Event(), torch.cuda.Event()
    computed.record()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    with torch.cuda.stream(copies):
        copies.wait_event(computed)
        host.copy_(tensor, non_blocking=True)
        copied.record()
    tensor.record_stream(copies)  # its memory is not given to other tensors before

    def wait() -> np.ndarray:
        copied.synchronize()
        return host.numpy().copy()  # page-locked memory is scarce, and the caller may keep the picture

    return wait
