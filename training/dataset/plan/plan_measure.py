"""What one sample costs on the device at hand, measured: drawing, CLIP, JPEG, and the process that writes the set."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ip2p_fast.benchmarks.memory import own_peak_gb
from ip2p_fast.errors import BadInput

from ..forms.record import PairRecord, Similarities
from ..forms.shards import tar_bytes
from ..options import guidance_of
from ..pairs.clip_scores import ClipScorer
from ..pairs.generator import Drawing, PairGenerator, Pictures
from ..pairs.making import Choice, Numbered, PairMaker
from ..pairs.pair_store import PairStore
from ..pairs.samples import Draws, Sample, draw_samples
from ..pairs.selection import Thresholds
from ..triplets.triplet import Triplet
from .plan import Costs, WriterCost

# the time of a sample does not depend on what its captions say
_TRIPLET = Triplet("a red house by the sea", "make it night", "a red house by the sea at night")
_MEGABYTE = 1_000_000
_APPENDED, _EMPTY_APPENDS, _FULL_APPENDS, _PER_SHARD = 4, 40, 15, 20


@dataclass(frozen=True)
class Measured:
    """The costs, and what they were measured with; peak_memory in bytes, of the GPU, or of the process on a CPU."""

    costs: Costs
    peak_memory: int
    samples: int
    steps: int
    size: tuple[int, int]
    device: str


def measure(
    base: str, clip: str, drawing: Drawing, count: int, device: str, dtype: str, place: Path, language: float = 0.0
) -> Measured:
    """Draws `count` samples of one triplet after a warm-up, as a worker of `dataset pairs` does, and times each part.

    Args:
        place: a folder on the disk that the set would be written to; a temporary one in it is written and removed.
        language: seconds a triplet, handed on.

    Raises:
        ModelError, BadInput: a model cannot be loaded or cannot draw what is asked; `place` cannot be written.
    """
    if count < 1:
        raise BadInput(f"--measure is {count}: at least 1 sample is needed")
    writer = measure_writer(place)  # first: a folder that cannot be written is known before anything is drawn
    generator = PairGenerator.from_pretrained(base, drawing, device, dtype)
    scorer = ClipScorer(clip, generator.device)
    captions = (_TRIPLET.caption, _TRIPLET.output)
    draws = Draws(count, cfg=guidance_of(base))

    def drawn(samples: Sequence[Sample]) -> list[Pictures]:
        found = dict(generator.generate((i, captions, sample) for i, sample in enumerate(samples)))
        return [found[i] for i in range(len(samples))]

    def scored(pictures: Sequence[Pictures]) -> list[Similarities]:
        before, after = zip(*pictures, strict=True)
        return scorer.score(captions, before, after)

    warm = drawn(draw_samples(captions, Draws(min(count, drawing.at_once), cfg=draws.cfg), seed=1))
    scored(warm)
    pictures, drawing_seconds = _timed(lambda: drawn(draw_samples(captions, draws, seed=0)))
    similarities, clip_seconds = _timed(lambda: scored(pictures))
    records, jpeg_seconds = _timed(lambda: _records(pictures, similarities, draws))
    peak = _peak_memory(generator.device)
    costs = Costs(
        drawing=drawing_seconds / count,
        clip=clip_seconds / count,
        jpeg=jpeg_seconds / count,
        language=language,
        bytes_per_pair=statistics.fmean(len(tar_bytes(record)) for record in records),
        writer=writer,
    )
    return Measured(costs, peak, count, generator.steps, generator.size, generator.device)


def measure_writer(place: Path) -> WriterCost:
    """Times `PairStore.append` with no pairs and with pairs of a megabyte, shards ended included.

    Raises:
        BadInput: `place` cannot be written.
    """
    pictures = np.random.default_rng(0).bytes(_MEGABYTE // 2)
    records = [PairRecord(f"{i:07d}", pictures, pictures, "make it night") for i in range(_APPENDED)]
    try:
        with (
            tempfile.TemporaryDirectory(dir=place, prefix=".plan-") as folder,
            PairStore(Path(folder) / "set", {}, _PER_SHARD) as store,
        ):
            empty = statistics.median(_seconds(lambda: store.append([], 1, {}), _EMPTY_APPENDS))
            # the mean: every fifth of them ends a shard
            full = statistics.fmean(_seconds(lambda: store.append(records, 1, {}), _FULL_APPENDS))
    except OSError as error:
        raise BadInput(f"{place} cannot be written: {error.strerror or error}; choose another with --on") from error
    return WriterCost(per_triplet=empty, per_byte=max(0.0, full - empty) / (_APPENDED * _MEGABYTE))


class _Replayed:
    """Stands for the generator and the scorer, so that what is left of a maker's work can be timed."""

    def __init__(self, pictures: list[Pictures], similarities: list[Similarities]) -> None:
        self._pictures, self._similarities = pictures, similarities

    def generate(self, jobs: Iterable[tuple[Any, tuple[str, str], Sample]]) -> Iterator[tuple[Any, Pictures]]:
        for (tag, _, _), pictures in zip(jobs, self._pictures, strict=True):
            yield tag, pictures

    def score(self, captions: tuple[str, str], before: object, after: object) -> list[Similarities]:
        return self._similarities

    def fault(self, captions: tuple[str, str]) -> None:
        return None


def _records(pictures: list[Pictures], similarities: list[Similarities], draws: Draws) -> list[PairRecord]:
    """All samples as the records they become if they are kept."""
    replayed = _Replayed(pictures, similarities)
    choice = Choice(draws, Thresholds(most=draws.count), filtered=False)
    make = PairMaker(cast(PairGenerator, replayed), cast(ClipScorer, replayed), choice).make
    return next(make([Numbered(0, _TRIPLET)])).records


def _timed(work: Callable[[], list[Any]]) -> tuple[list[Any], float]:
    begun = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begun


def _seconds(work: Callable[[], None], times: int) -> list[float]:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return taken


def _peak_memory(device: str) -> int:
    import torch

    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return round(own_peak_gb() * 1e9)
