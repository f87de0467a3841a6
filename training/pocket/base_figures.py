"""Does the text-to-image model draw what a caption says? Every attribute is read off its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ip2p_fast.benchmarks.results import Row, write_results

from ..dataset.pairs.generator import PairGenerator
from ..dataset.pairs.samples import Draws, sample_of
from .language import caption
from .reader import Reader, read
from .scene import ATTRIBUTES
from .split import draw_pair

_TARGET = 0.85


@dataclass(frozen=True)
class BaseReport:
    """Shares in [0, 1] of `pictures` pictures of held-out captions.

    captioned: every attribute reads as the caption says. by_attribute: each alone. cfg: the range of guidance, from
    which every picture draws its own.
    """

    captioned: float
    by_attribute: dict[str, float]
    pictures: int
    steps: int
    cfg: tuple[float, float]

    def as_json(self) -> dict[str, Any]:
        """The object that `ip2p-fast evaluate base --json` prints."""
        return dict(vars(self))


def measure_base(
    generator: PairGenerator,
    reader: Reader,
    limit: int,
    cfg: tuple[float, float],
    advance: Callable[[int], None] = lambda done: None,
) -> BaseReport:
    """Draws the first `limit` held-out scenes from captions, each in a phrasing of its own, and has them read."""
    scenes = [draw_pair("held-out", index).scene for index in range(limit)]
    jobs = (
        (index, caption(scene, np.random.default_rng(index)), sample_of(index, Draws(cfg=cfg)))
        for index, scene in enumerate(scenes)
    )
    pictures: dict[int, np.ndarray] = {}
    for index, picture in generator.draw(jobs):
        pictures[index] = picture
        advance(len(pictures))
    values = read(reader, np.stack([pictures[index] for index in range(limit)]))
    right = values == np.array([list(scene.labels().values()) for scene in scenes])  # [N, 8]
    by_attribute = {name: float(share) for name, share in zip(ATTRIBUTES, right.mean(0), strict=True)}
    return BaseReport(float(right.all(1).mean()), by_attribute, limit, generator.steps, cfg)


def record_base(path: Path, report: BaseReport) -> None:
    """Writes the results file."""
    detail = {"what": "pictures in which every captioned attribute is read", **report.as_json()}
    rows = [Row("pocket.base.captioned", report.captioned, "share", "higher", _TARGET, detail)]
    for name, share in report.by_attribute.items():
        what = {"what": f"pictures by the text-to-image model whose {name} is read right"}
        rows.append(Row(f"pocket.base.{name}", share, "share", "higher", None, what))
    write_results(path, rows, rerun=f"ip2p-fast evaluate base --limit {report.pictures} --record {path.as_posix()}")
