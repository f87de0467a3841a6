"""Where the time of a whole edit goes, by stage: diffusers' pipeline and ours, a watch around each network."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ip2p_fast import Editor
from ip2p_fast.backends.bundle_backend import BundleBackend, opened
from ip2p_fast.backends.openvino_backend import OpenVinoRunner, dtypes_of
from ip2p_fast.checkpoints import SHIPPED

from .bench import Bench
from .exported import export, write_samples
from .random_model import SD15, TINY, save_random_model
from .results import Row
from .sd15 import export_random
from .stage_names import STAGES
from .timing import Work, interleave
from .whole_edits import Settings, edit_of, open_diffusers

_ROUNDS, _LARGE_ROUNDS = 15, 3
_STEPS = 20
# ours by graph
_GRAPHS = dict(zip(("text_encoder", "vae_encoder", "guided_step", "vae_decoder"), STAGES, strict=False))


class Watch:
    """Seconds by stage since `take`."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def around(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **options)
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - start
            return result

        return timed

    def take(self) -> dict[str, float]:
        taken, self._seconds = self._seconds, {}
        return taken


class WatchedRunner:
    """Another runner, timed by graph."""

    def __init__(self, runner: OpenVinoRunner, watch: Watch) -> None:
        self.name, self.device, self.dtype = runner.name, runner.device, runner.dtype
        self.settle = runner.settle
        self._runs = {graph: watch.around(stage, runner.run) for graph, stage in _GRAPHS.items()}

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Any:
        return self._runs[graph](graph, inputs)


def measure(bench: Bench) -> list[Row]:
    """One edit of 20 steps of three rows: the pocket model's, and one of Stable Diffusion 1.5's size of 256x256."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench.watching("exporting the pocket model, with int8")
        pocket = (
            str(save_random_model(TINY, folder / "tiny")) if bench.quick else str(SHIPPED.get(bench.model, bench.model))
        )
        export(pocket, folder / "pocket", write_samples(folder) if bench.quick else None)
        rows += _model("pocket", Path(pocket), folder / "pocket", "float32", 64, _ROUNDS, bench)
        if not bench.quick:
            bench.watching("exporting a model of SD1.5's size, with int8")
            bundle = export_random(SD15, 32, folder)
            rows += _model("sd15", folder / "model", bundle, "bfloat16", 256, _LARGE_ROUNDS, bench)
    return rows


def _model(name: str, model: Path, bundle: Path, theirs: str, pixels: int, rounds: int, bench: Bench) -> list[Row]:
    settings = Settings(pixels, 2 if bench.quick else _STEPS)
    watches = {key: Watch() for key in ("diffusers", "bfloat16", "int8")}
    titles = {"diffusers": f"diffusers ({theirs})", "bfloat16": "ours (bfloat16)", "int8": "ours (int8)"}
    edits = {"diffusers": _diffusers(model, theirs, watches["diffusers"])}
    edits |= {key: _ours(bundle, key, watches[key]) for key in ("bfloat16", "int8")}
    taken: dict[str, list[dict[str, float]]] = {key: [] for key in watches}

    def told(key: str) -> None:
        edits[key](settings, 1)
        taken[key].append(watches[key].take())

    works: dict[str, Work] = {key: (lambda key=key: told(key)) for key in edits}  # type: ignore[misc]
    timings = interleave(works, bench.rounds(rounds), watch=bench.watching(f"edits of {name}"))
    rows = []
    for key, timing in timings.items():
        rounds_taken = taken[key][-len(timing.seconds) :]
        parts = {stage: [one.get(stage, 0.0) for one in rounds_taken] for stage in STAGES[:-1]}
        parts[STAGES[-1]] = [w - sum(one.values()) for w, one in zip(timing.seconds, rounds_taken, strict=True)]
        rows += [
            Row(
                f"cpu.stages.{name}.{key}.{stage.lower().replace(' ', '_')}",
                1000 * float(np.median(parts[stage])),
                "ms",
                "lower",
                None,
                {
                    "what": f"a {pixels}x{pixels} edit of {name} in {settings.steps} steps, {titles[key]}: {stage}",
                    "edit_ms": 1000 * timing.spread.p50,
                    "title": titles[key],
                    "stage": stage,
                    "model": f"{name}, {pixels}x{pixels}, {settings.steps} steps",
                },
            )
            for stage in STAGES
        ]
    return rows


def _diffusers(model: Path, dtype: str, watch: Watch) -> Callable[[Settings, int], object]:
    pipe, edit = open_diffusers(model, "cpu", dtype)
    texts, to_latents, unet, to_picture = STAGES[:-1]
    pipe.text_encoder.forward = watch.around(texts, pipe.text_encoder.forward)
    pipe.vae.encode = watch.around(to_latents, pipe.vae.encode)
    pipe.unet.forward = watch.around(unet, pipe.unet.forward)
    pipe.vae.decode = watch.around(to_picture, pipe.vae.decode)
    return edit


def _ours(bundle: Path, dtype: str, watch: Watch) -> Callable[[Settings, int], object]:
    read, tokenizer = opened(bundle, dtype, dtypes_of)
    runner = WatchedRunner(OpenVinoRunner.on_cpu(read, dtype), watch)
    return edit_of(Editor(BundleBackend(read, runner), tokenizer))
