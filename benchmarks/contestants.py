"""Who takes part in the matrix: ours, and the peers that are installed, each a function that opens an engine.

To add one, write a function of a Job that returns a function of (Settings, count), and a line in `contestants`.

Light to import, as the processes that first edits and peak memory are taken of import it: engines are imported where
they are opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from .whole_edits import Edit, Settings, open_diffusers, open_editor

BUNDLE = "bundle"
STUDENT_STEPS = 4


@dataclass(frozen=True)
class Job:
    """What contestants are given.

    model    a folder in Hugging Face layout, or a hub id
    folder   where conversions are kept
    device   "cpu" or "cuda"
    dtype    what ours computes in by default there: "bfloat16" or "float32"
    samples  pictures to calibrate int8 on, where the model brings none
    student  a model of one row, or None: then the model itself in one row, which costs the same
    sd_cpp   stable-diffusion.cpp's program
    """

    model: str
    folder: Path
    device: str
    dtype: str
    samples: Path | None = None
    student: str | None = None
    sd_cpp: Path | None = None


@dataclass(frozen=True)
class Contestant:
    """
    key      the last part of its rows' ids
    title    what a table calls it
    dtype    of its matrix products, for the ceiling
    open     loads: a function of the top level of this module, as it also runs in a process of its own
    prepare  what a user does once, ahead of time; contestants of one name share it
    needs    packages
    rows     of the UNet in a step
    steps    its own, whatever the others take
    """

    key: str
    title: str
    dtype: str
    open: Callable[[Job], Edit]
    prepare: Callable[[Job], None] | None = None
    needs: tuple[str, ...] = ()
    rows: int = 3
    steps: int | None = None


def contestants(job: Job) -> list[Contestant]:
    """All that there are for a device, installed or not; ours that is exact comes first, as the others' reference."""
    half = job.dtype
    plain = half if job.device == "cuda" else "float32"
    listed = [
        Contestant("exact", f"ours ({half})", half, _ours),
        Contestant("diffusers", f"diffusers ({plain})", plain, partial(_diffusers, dtype=plain)),
        Contestant("diffusers_compiled", f"diffusers, compiled ({half})", half, _diffusers_compiled),
        Contestant(
            "onnxruntime",
            "diffusers, UNet in ONNX Runtime (float32)",
            "float32",
            _onnxruntime,
            _write_onnx,
            ("onnxruntime", "onnxscript"),
        ),
    ]
    student = Contestant(
        "student", f"ours, one row and {STUDENT_STEPS} steps ({half})", half, _student, rows=1, steps=STUDENT_STEPS
    )
    if job.device == "cuda":
        tensorrt = Contestant(
            "tensorrt",
            "diffusers, UNet in TensorRT (float32)",
            "float32",
            _tensorrt,
            _write_onnx,
            ("tensorrt", "onnxscript"),
        )
        listed += [tensorrt, student]
    else:
        listed += [
            Contestant(
                "openvino",
                f"diffusers, UNet in OpenVINO ({half})",
                half,
                _openvino,
                _write_openvino,
                ("openvino",),
            ),
            Contestant(
                "exported",
                f"ours, OpenVINO ({half})",
                half,
                partial(_exported, dtype=half),
                _write_bundle,
                ("openvino", "nncf"),
            ),
            Contestant(
                "int8",
                "ours, OpenVINO (int8)",
                half,
                partial(_exported, dtype="int8"),
                _write_bundle,
                ("openvino", "nncf"),
            ),
            student,
        ]
    if job.sd_cpp is not None:
        listed.append(Contestant("stable_diffusion_cpp", "stable-diffusion.cpp", half, _stable_diffusion_cpp))
    return listed


def absent(contestant: Contestant) -> str | None:
    """Why it cannot run here, or None."""
    missing = [name for name in contestant.needs if find_spec(name) is None]
    return f"{', '.join(missing)} not installed" if missing else None


def opened_once(contestant: Contestant, job: Job, settings: Settings) -> Callable[[], object]:
    """Loads, and returns what makes one edit."""
    return partial(contestant.open(job), settings, 1)


def _ours(job: Job) -> Edit:
    return open_editor(job.model, "torch", job.device, job.dtype)


def _exported(job: Job, dtype: str) -> Edit:
    return open_editor(job.folder / BUNDLE, "openvino", job.device, dtype)


def _student(job: Job) -> Edit:
    edit = open_editor(job.student or job.model, "torch", job.device, job.dtype)

    def run(settings: Settings, count: int) -> object:
        if job.student is None:
            settings = replace(settings, text_guidance=1.0, image_guidance=1.0)
        return edit(replace(settings, steps=STUDENT_STEPS), count)

    return run


def _diffusers(job: Job, dtype: str) -> Edit:
    return open_diffusers(job.model, job.device, dtype)[1]


def _diffusers_compiled(job: Job) -> Edit:
    """Channels last, and where weights are constants, as on a CPU, laid out at compilation."""
    import torch
    import torch._inductor.config as inductor

    inductor.freezing = job.device == "cpu"
    pipe, edit = open_diffusers(job.model, job.device, job.dtype)
    pipe.unet = torch.compile(pipe.unet.to(memory_format=torch.channels_last))
    return edit


def _onnxruntime(job: Job) -> Edit:
    from .peers import onnx_unet, plain_unet

    pipe, edit = open_diffusers(job.model, job.device, "float32")
    provider = "CUDAExecutionProvider" if job.device == "cuda" else "CPUExecutionProvider"
    plain_unet.replace_unet(pipe, onnx_unet.OnnxUNet(job.folder, [provider]))
    return edit


def _openvino(job: Job) -> Edit:
    from .peers import openvino_unet, plain_unet

    pipe, edit = open_diffusers(job.model, job.device, "float32")
    plain_unet.replace_unet(pipe, openvino_unet.OpenVinoUNet(openvino_unet.read(job.folder), job.dtype))
    return edit


def _tensorrt(job: Job) -> Edit:
    from .peers import onnx_unet, plain_unet, tensorrt_unet

    pipe, edit = open_diffusers(job.model, job.device, "float32")
    plain_unet.replace_unet(pipe, tensorrt_unet.TensorRtUNet(job.folder / onnx_unet.FILE))
    return edit


def _stable_diffusion_cpp(job: Job) -> Edit:
    from .peers import stable_diffusion_cpp

    assert job.sd_cpp is not None
    return stable_diffusion_cpp.open_program(job.sd_cpp, job.model)


def _write_onnx(job: Job) -> None:
    from .peers import onnx_unet

    onnx_unet.write(job.model, job.folder)


def _write_openvino(job: Job) -> None:
    from .peers import openvino_unet

    openvino_unet.write(job.model, job.folder)


def _write_bundle(job: Job) -> None:
    from .exported import export

    export(job.model, job.folder / BUNDLE, job.samples)
