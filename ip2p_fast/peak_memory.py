"""The most memory that was held at once: by the process, or on a GPU by PyTorch's allocator."""

from __future__ import annotations

from pathlib import Path


def process_bytes() -> int:
    """Peak resident memory of this process. Linux's own figure first: ru_maxrss begins at the parent's peak."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        import resource  # which Windows has not

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def allocator_bytes(device: str) -> int:
    """Peak of what PyTorch's tensors held on a GPU: what an edit needs. CUDA's own context is not in it."""
    import torch

    return torch.cuda.max_memory_allocated(device)
