"""Where a guided step of Stable Diffusion 1.5's size spends a GPU's time, by kind of kernel, ours and diffusers'."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .bench import Bench
from .gpu import STEP, case_of, pipeline_of
from .guided_steps import DiffusersStep, our_step
from .results import Row
from .timing import Work

_STEPS = 5
_LONGEST = 25  # kernels named one by one
# the first kind whose pattern is found in a kernel's name
_KINDS = {
    "convolutions": r"conv|cudnn(?!.*(fmha|sdpa|attention))|xmma_fprop|implicit|wgrad|nchw|nhwc",
    "attention": r"attention|flash|fmha|sdpa",
    "products": r"gemm|matmul_kernel|cutlass|nvjet|cublas|splitK",
    "group norms": r"group_norm|measure_kernel|combine_kernel|normalise_kernel|RowwiseMoments|GroupNorm",
    "layer norms": r"layer_norm|rows_kernel",
    "gates and activations": r"gate_kernel|gelu|silu",
    "guided step": r"guided_step",
    "copies and joins": r"copy|Cat|Memcpy|memcpy|upsample|transpose",
}


def measure(bench: Bench) -> list[Row]:
    """Rows gpu.breakdown.ENGINE.KIND: seconds a step, launch gaps not counted."""
    case, pipe = case_of(bench), pipeline_of(bench)
    engines: dict[str, Work] = {
        "ours": our_step(pipe, case, "bfloat16", cuda_graph=False),
        "diffusers": DiffusersStep(pipe, pipe.unet, case, torch.bfloat16),
    }
    watch = bench.watching("kernels of a step")
    rows = []
    for done, (name, step) in enumerate(engines.items()):
        rows += _rows(name, _device_seconds(step, case.device))
        watch(done + 1, len(engines))
    return rows


def _device_seconds(step: Work, device: torch.device) -> dict[str, float]:
    """Seconds a step of each kernel by name; on a CPU, for trials, of each operator."""
    gpu = device.type == "cuda"
    for _ in range(3):
        step()
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as seen:
        for _ in range(_STEPS):
            step()
        if gpu:
            torch.cuda.synchronize(device)
    kernels = [event for event in seen.key_averages() if not gpu or event.device_type == DeviceType.CUDA]
    return {
        event.key: (event.self_device_time_total if gpu else event.self_cpu_time_total) / 1e6 / _STEPS
        for event in kernels
    }


def _rows(engine: str, seconds: dict[str, float]) -> list[Row]:
    kinds: dict[str, dict[str, float]] = defaultdict(dict)
    for kernel, time in seconds.items():
        kinds[_kind(kernel)][kernel] = time
    total = sum(seconds.values())
    rows = []
    for kind, kernels in kinds.items():
        longest = dict(sorted(kernels.items(), key=lambda item: -item[1])[:_LONGEST])
        detail: dict[str, Any] = {"what": f"{STEP}: {engine}, {kind}", "share": sum(kernels.values()) / (total or 1.0)}
        detail["kernels_s"] = {kernel[:100]: time for kernel, time in longest.items()}
        name = f"gpu.breakdown.{engine}.{kind.replace(' ', '_')}"
        rows.append(Row(name, sum(kernels.values()), "s", "lower", None, detail))
    return rows


def _kind(kernel: str) -> str:
    for kind, pattern in _KINDS.items():
        if re.search(pattern, kernel, re.IGNORECASE):
            return kind
    return "others"
