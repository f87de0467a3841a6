"""torch.compile on a GPU at Stable Diffusion 1.5's size: diffusers' UNet and ours through it, compiling told apart."""

from __future__ import annotations

import copy
from typing import Any

import torch

from .bench import Bench
from .comparisons import speedup
from .gpu import STEP, case_of, pipeline_of, timed
from .guided_steps import DiffusersStep, our_step
from .results import Row


def measure_peer(bench: Bench) -> list[Row]:
    """Ours with CUDA graph against diffusers with its UNet compiled, which takes CUDA graphs too."""
    case, pipe = case_of(bench), pipeline_of(bench)
    # "eager" captures and runs: enough to see that this suite works
    how: dict[str, Any] = {"backend": "eager"} if bench.quick else {"mode": "reduce-overhead"}
    compiled = torch.compile(copy.deepcopy(pipe.unet).to(memory_format=torch.channels_last), fullgraph=True, **how)
    timings = timed(
        bench,
        "guided step, diffusers compiled",
        {
            "diffusers": DiffusersStep(pipe, compiled, case, torch.bfloat16),
            "ours": our_step(pipe, case, "bfloat16"),
        },
    )
    ours, diffusers = timings["ours"], timings["diffusers"]
    return [
        speedup(
            "gpu.sd15.step.vs_diffusers_compiled",
            f"{STEP}: ours, CUDA graph, against diffusers' compiled UNet, channels last",
            ours,
            diffusers,
            1.5,
        ),
        Row(
            "gpu.sd15.step.diffusers_compile_time",
            diffusers.first,
            "s",
            "lower",
            None,
            {"what": "first step of diffusers' compiled UNet: compiling, which ours does without"},
        ),
        Row(
            "gpu.sd15.step.first_time",
            ours.first,
            "s",
            "lower",
            None,
            {"what": "first step of ours: kernels are compiled and chosen; the second captures the CUDA graph"},
        ),
    ]


def measure_ours(bench: Bench) -> list[Row]:
    """Ours with its UNet through torch.compile, in the CUDA graph, against ours without."""
    case, pipe = case_of(bench), pipeline_of(bench)
    timings = timed(
        bench,
        "guided step, ours compiled",
        {
            "ours": our_step(pipe, case, "bfloat16"),
            "compiled": our_step(pipe, case, "bfloat16", compile="eager" if bench.quick else True),
        },
    )
    return [
        speedup(
            "gpu.sd15.step.compiled_vs_ours",
            f"{STEP}: ours through torch.compile, against ours; both in a CUDA graph",
            timings["compiled"],
            timings["ours"],
        ),
        Row(
            "gpu.sd15.step.compile_time",
            timings["compiled"].first,
            "s",
            "lower",
            None,
            {"what": "first step of ours through torch.compile"},
        ),
    ]
