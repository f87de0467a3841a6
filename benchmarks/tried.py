"""What was tried on a CPU and not kept, measured: each row is what it would save or cost."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import openvino
import torch

from ip2p_fast.backends.bundle_backend import BundleBackend, opened
from ip2p_fast.backends.openvino_backend import OpenVinoRunner, dtypes_of
from ip2p_fast.bundle import Bundle
from ip2p_fast.checkpoints import SHIPPED

from .bench import Bench
from .ceilings import unet_gflop_by_module
from .exported import export, write_samples
from .guided_steps import Case, step_of
from .random_model import SD15, TINY, save_random_model
from .results import Row
from .timing import Timing, Work, interleave, ratio

_ROUNDS, _COMPILATIONS = 15, 5
_LATENTS = 32
_STEP = "guided_step"


def measure(bench: Bench) -> list[Row]:
    """Of the pocket model what is timed, of Stable Diffusion 1.5's size what is counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench.watching("exporting the pocket model")
        model = save_random_model(TINY, folder / "tiny") if bench.quick else Path(SHIPPED.get(bench.model, bench.model))
        export(str(model), folder / "bundle", write_samples(folder) if bench.quick else None)
        bundle, tokenizer = opened(folder / "bundle", "float32", dtypes_of)

        def step(settled: bool) -> Work:
            runner = OpenVinoRunner.on_cpu(bundle, "auto")
            if settled:
                runner.settle()
            return step_of(BundleBackend(bundle, runner), tokenizer, Case(64, torch.device("cpu")))

        works = {"fixed": step(False), "any": step(True)}
        timings = interleave(works, bench.rounds(_ROUNDS), watch=bench.watching("a graph for any shape"))
        bench.watching("OpenVINO's cache")
        cache = _cache(bundle, folder / "cache", bench.rounds(_COMPILATIONS))
    return [_any_shape(timings), *cache, *_shared_work()]


def _any_shape(timings: dict[str, Timing]) -> Row:
    spread = ratio(timings["any"], timings["fixed"])
    detail = {
        "what": "time of a pocket step by one graph compiled for any shape, over that by one compiled for its own",
        **spread.as_json(),
        "tried": "one compilation for any shape",
        "kept": "a compilation a shape, until shapes are many",
    }
    return Row("cpu.tried.any_shape", spread.p50, "x", "lower", None, detail)


def _cache(bundle: Bundle, folder: Path, times: int) -> list[Row]:
    """Compiling the pocket step, new and from OpenVINO's cache on disk."""
    plain, kept = openvino.Core(), openvino.Core()
    kept.set_property({"CACHE_DIR": str(folder)})
    _compile(kept, bundle)
    works: dict[str, Work] = {"new": partial(_compile, plain, bundle), "kept": partial(_compile, kept, bundle)}
    timings = interleave(works, times, warmup=1)
    spread = ratio(timings["kept"], timings["new"])
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    weights = sum(path.stat().st_size for path in bundle.folder.rglob("*.safetensors"))
    said = {"tried": "OpenVINO's cache of compiled graphs", "kept": "none: a cache a shape"}
    return [
        Row(
            "cpu.tried.cache.time",
            spread.p50,
            "x",
            "lower",
            None,
            {
                "what": "time to compile the pocket step from the cache on disk, over that to compile it new",
                **spread.as_json(),
                **said,
            },
        ),
        Row(
            "cpu.tried.cache.size",
            size / weights,
            "x",
            "lower",
            None,
            {"what": "what the cache takes on disk for one shape of the step, over all the bundle's weights", **said},
        ),
    ]


def _compile(core: openvino.Core, bundle: Bundle) -> object:
    graph = bundle.graphs[_STEP]
    model = core.read_model(bundle.folder / graph.file)
    sides = {"B": 1, "R": 3, "C": 2, "h": 8, "w": 8}
    shapes = {
        name: openvino.PartialShape([sides[side] if isinstance(side, str) else side for side in spec.shape])
        for name, spec in graph.inputs.items()
    }
    model.reshape(shapes)
    return core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})


def _shared_work() -> list[Row]:
    """Counted on the UNet of Stable Diffusion 1.5's size, three rows of 32x32 latents."""
    counts = unet_gflop_by_module(SD15, _LATENTS, 3)
    whole = counts[""]
    texts = sum(gflop for name, gflop in counts.items() if name.endswith(("attn2.to_k", "attn2.to_v")))
    first = "down_blocks.0.attentions.0"
    before_the_text = ("conv_in", "down_blocks.0.resnets.0", f"{first}.proj_in", f"{first}.transformer_blocks.0.attn1")
    common = sum(counts[name] for name in before_the_text)
    of = f"of a row of Stable Diffusion 1.5's size at {_LATENTS}x{_LATENTS} latents, by count"
    return [
        Row(
            "cpu.tried.texts_once",
            texts / whole,
            "share",
            "higher",
            None,
            {
                "what": f"texts' keys and values, as a share {of}",
                "tried": "texts' keys and values computed once an edit",
                "kept": "by the torch backend; exported graphs compute them in the step",
            },
        ),
        Row(
            "cpu.tried.common_part",
            common / whole,
            "share",
            "higher",
            None,
            {
                "what": f"what is the same for rows of one picture, before the first layer that reads the text, {of}",
                "tried": "the common part of two rows computed once",
                "kept": "not built",
            },
        ),
    ]
