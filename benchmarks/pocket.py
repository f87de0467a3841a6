"""Edits by the pocket model on a CPU: same weights, picture, steps and scales in diffusers' pipeline and in ours."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ip2p_fast import Editor
from ip2p_fast.backends.torch_backend import resolve_dtype
from ip2p_fast.editor import DEFAULTS

from . import startup
from .bench import Bench
from .comparisons import speedup
from .memory import peak_memory_gb
from .random_model import TINY, save_random_model
from .results import Row
from .timing import Timing, Work, interleave
from .whole_edits import Settings, diffusers_pipeline, our_editor

_ROUNDS = 15
_BATCH = 8
_STEPS = 20
_STUDENT_STEPS = 4
_EDIT = f"pocket, {_STEPS} steps, exact"


def measure(bench: Bench) -> list[Row]:
    """Edits a second, one at a time and in a batch, against diffusers; peak memory; the start of the command.

    A quick trial takes a random model. Raises ModelError where the pocket model is not there.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = str(save_random_model(TINY, Path(folder), torch.float32)) if bench.quick else bench.model
        info = Editor.from_pretrained(model, device="cpu").backend.info
        chosen = {**DEFAULTS, **info.defaults}
        settings = Settings(
            size=chosen["size"],
            steps=2 if bench.quick else _STEPS,
            text_guidance=chosen["text_guidance"],
            image_guidance=chosen["image_guidance"],
        )
        student = None if bench.quick else "pocket-student"
        return [*_speed(info.path, student, settings, bench), *startup.measure(bench, info.path, settings)]


def _speed(model: str, student: str | None, settings: Settings, bench: Bench) -> list[Row]:
    auto = str(resolve_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    edits = {
        "diffusers_fp32": diffusers_pipeline(model, settings, "float32"),
        "ours_fp32": our_editor(model, settings, "float32"),
        "ours_auto": our_editor(model, settings, "auto"),
    }
    if student is not None:
        edits["student"] = our_editor(student, replace(settings, steps=_STUDENT_STEPS), "auto")

    def timed(count: int, rounds: int) -> dict[str, Timing]:
        watch = bench.watching(f"pocket, {_at_a_time(count)}")
        work: dict[str, Work] = {name: partial(edit, count) for name, edit in edits.items()}
        return interleave(work, bench.rounds(rounds), watch=watch)

    single, batch = timed(1, _ROUNDS), timed(_BATCH, _ROUNDS // 3)
    bench.watching("pocket, peak memory")
    ours_gb = peak_memory_gb(our_editor, model, settings, "auto")
    memory = {
        "what": f"peak memory of one pocket edit, loading included ({auto})",
        "diffusers_gb": peak_memory_gb(diffusers_pipeline, model, settings, "float32"),
    }
    peer = "against diffusers (float32)"
    alone, together = f"{_EDIT}, {_at_a_time(1)}", f"{_EDIT}, {_at_a_time(_BATCH)}"
    return [
        speedup(
            "cpu.pocket.exact.vs_diffusers",
            f"{alone}: ours (float32) {peer}",
            single["ours_fp32"],
            single["diffusers_fp32"],
            target=2.0,
        ),
        speedup(
            "cpu.pocket.exact.auto_vs_diffusers",
            f"{alone}: ours ({auto}) {peer}",
            single["ours_auto"],
            single["diffusers_fp32"],
            target=4.0,
        ),
        *(
            speedup(
                f"cpu.pocket.student.{name}_vs_diffusers",
                f"pocket-student in {_STUDENT_STEPS} steps of one row ({auto}) against diffusers' {_STEPS} of three "
                f"(float32), {_at_a_time(count)}",
                timings["student"],
                timings["diffusers_fp32"],
                count=count,
            )
            for name, timings, count in (("single", single, 1), ("batch", batch, _BATCH))
            if student is not None
        ),
        speedup(
            "cpu.pocket.exact.batch_vs_diffusers",
            f"{together}: ours (float32) {peer}",
            batch["ours_fp32"],
            batch["diffusers_fp32"],
            count=_BATCH,
        ),
        _edits_per_second("cpu.pocket.exact.edits_per_second", f"{alone} ({auto})", single["ours_auto"], 1),
        _edits_per_second(
            "cpu.pocket.exact.batch_edits_per_second", f"{together} ({auto})", batch["ours_auto"], _BATCH
        ),
        Row("cpu.pocket.peak_memory", ours_gb, "GB", "lower", None, memory),
    ]


def _edits_per_second(name: str, what: str, timing: Timing, count: int) -> Row:
    detail = {"what": what, "call_s": timing.as_json()}
    return Row(name, count / timing.spread.p50, "edits/s", "higher", None, detail)


def _at_a_time(count: int) -> str:
    return "one edit at a time" if count == 1 else f"{count} edits at a time"
