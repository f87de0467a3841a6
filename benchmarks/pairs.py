"""Training pairs of one caption pair: ours, many samples in one loop, against the original's way in diffusers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ip2p_fast.backends.torch_backend import resolve_dtype
from ip2p_fast.training.dataset.options import guidance_of
from ip2p_fast.training.dataset.pairs.generator import Drawing, PairGenerator, Pictures
from ip2p_fast.training.dataset.pairs.samples import Draws, Sample, draw_samples

from .bench import Bench
from .peers.prompt_to_prompt import PromptToPrompt
from .random_model import TINY, save_random_model
from .results import Row
from .timing import Timing, interleave, ratio

BASE = "pocket-base"
CAPTIONS = (
    "a watercolour of two red cats on the left, in a meadow, by day, in clear weather",
    "a watercolour of two blue cats on the left, in a meadow, by day, in clear weather",
)
_SAMPLES, _STEPS, _ROUNDS = 32, 25, 3
_TARGET = 3.0

Maker = Callable[[Sequence[Sample]], list[Pictures]]


def measure(bench: Bench) -> list[Row]:
    """Pairs a second against the straightforward script, one sample at a time, and how far the pictures are apart.

    A quick trial takes a random model.
    """
    from ip2p_fast.checkpoints import SHIPPED

    with tempfile.TemporaryDirectory() as folder:
        base = save_random_model(TINY, Path(folder), torch.float32, edits=False) if bench.quick else SHIPPED[BASE]
        samples = draw_samples(CAPTIONS, Draws(2 if bench.quick else _SAMPLES, cfg=guidance_of(str(base))), seed=0)
        return _rows(base, samples, 2 if bench.quick else _STEPS, bench)


def _rows(base: Path, samples: list[Sample], steps: int, bench: Bench) -> list[Row]:
    auto = str(resolve_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    makers = {
        "script": by_script(base, steps),
        "float32": by_generator(base, steps, "float32"),
        auto: by_generator(base, steps, auto),
    }
    times = interleave(
        {name: partial(make, samples) for name, make in makers.items()},
        bench.rounds(_ROUNDS),
        warmup=1,
        watch=bench.watching("pairs of one caption pair"),
    )
    what = f"{len(samples)} pairs of one caption pair, {steps} steps"
    rows = [_speed(dtype, what, times, len(samples)) for dtype in dict.fromkeys(("float32", auto))]
    few = samples[:4]
    return [*rows, _likeness(makers["script"](few), makers["float32"](few))]


def by_script(base: Path, steps: int, dtype: str = "float32", device: str = "cpu") -> Maker:
    """diffusers, one sample at a time, maps in memory."""
    script = PromptToPrompt.from_pretrained(base, getattr(torch, dtype), device)
    side = script.pipe.unet.config.sample_size

    def pair(sample: Sample) -> Pictures:
        rng = np.random.Generator(np.random.Philox(key=sample.seed))
        noise = np.stack([rng.standard_normal((4, side, side), dtype=np.float32) for _ in range(1 + steps)])
        return script.pair(CAPTIONS, noise, sample.p, sample.cfg)

    return lambda samples: [pair(sample) for sample in samples]


def by_generator(base: Path, steps: int, dtype: str, device: str = "cpu") -> Maker:
    """Ours, as `dataset pairs` runs it."""
    generator = PairGenerator.from_pretrained(base, Drawing(steps=steps), device, dtype)

    def pairs(samples: Sequence[Sample]) -> list[Pictures]:
        made = dict(generator.generate((i, CAPTIONS, sample) for i, sample in enumerate(samples)))
        return [made[i] for i in range(len(samples))]

    return pairs


def _speed(dtype: str, what: str, times: dict[str, Timing], count: int) -> Row:
    faster = ratio(times["script"], times[dtype])
    detail = {
        "what": f"{what}: ours ({dtype}) against a diffusers script with explicit maps (float32), one at a time",
        **faster.as_json(),
        "pairs_per_s": count / times[dtype].spread.p50,
        "script_pairs_per_s": count / times["script"].spread.p50,
        "seconds": {name: timing.as_json() for name, timing in times.items()},
    }
    return Row(f"cpu.pairs.{dtype}.vs_script", faster.p50, "x", "higher", _TARGET, detail)


def _likeness(theirs: list[Pictures], ours: list[Pictures]) -> Row:
    a, b = (np.stack([picture for pair in pairs for picture in pair]).astype(int) for pairs in (theirs, ours))
    share = float((np.abs(a - b) <= 1).mean())
    detail = {"what": "pixels of ours (float32) within one grey level of the script's, same seeds", "pictures": len(a)}
    return Row("cpu.pairs.same_pictures", share, "share", "higher", 0.999, detail)
