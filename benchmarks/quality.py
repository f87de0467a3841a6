"""What a precision costs in quality: pocket edits against those in float32, by pixel and by the pocket's reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ip2p_fast import Editor

from .bench import Bench
from .inputs import INSTRUCTION, picture
from .results import Row

JUDGED = 1000
PICTURES = 16
LARGEST_PSNR = 99.0  # equal pictures have none
POINTS_TARGET = 2.0
Opening = Callable[[], Editor]


def pictures(editor: Editor, count: int, steps: int) -> list[np.ndarray]:
    """Edits of one picture by different seeds, one at a time, at the model's own scales."""
    size = int(editor.backend.info.defaults["size"])
    return [
        np.asarray(editor.edit(picture(size), INSTRUCTION, steps=steps, size=size, seed=seed).images[0], np.float64)
        for seed in range(count)
    ]


def lowest_psnr(ours: list[np.ndarray], exact: list[np.ndarray]) -> tuple[float, float]:
    """The lowest and the mean PSNR, in dB."""
    values = [_psnr(a, b) for a, b in zip(ours, exact, strict=True)]
    return min(values), float(np.mean(values))


def points_lost(
    openings: Mapping[str, Opening], model_folder: Path, prefix: str, backend: str, bench: Bench
) -> list[Row]:
    """What the reader says of the same edits: rows PREFIX.points_lost.NAME of each against the first of `openings`."""
    from ip2p_fast.training.pocket.data import draw_pairs
    from ip2p_fast.training.pocket.evaluate import Report, edit_pairs, judge
    from ip2p_fast.training.pocket.reader import load_reader

    reader = load_reader(model_folder / "reader")
    pairs = draw_pairs("held-out", JUDGED, reader.pixels)
    reports: dict[str, Report] = {}
    for name, opening in openings.items():
        watch = bench.watching(f"accuracy in {name}")
        edited = edit_pairs(opening(), pairs, range(JUDGED), None, lambda done, watch=watch: watch(done, JUDGED))
        reports[name] = judge(reader, pairs, np.stack([np.asarray(one) for one in edited]))
    exact, *others = reports
    return [_points_lost(prefix, backend, exact, name, reports) for name in others]


def _points_lost(prefix: str, backend: str, exact: str, name: str, reports: Mapping[str, Any]) -> Row:
    """The larger of what the success and the preservation lose."""
    shares = {
        kind: {share: getattr(reports[kind], share) for share in ("target_success", "preservation")}
        for kind in (exact, name)
    }
    lost = {share: 100 * (shares[exact][share] - shares[name][share]) for share in shares[exact]}
    edits = f"{JUDGED} pocket edits lose in {name} ({backend})"
    what = f"points of success or preservation that {edits}, the larger of the two"
    detail = {"what": what, "points_lost": lost, **shares}
    return Row(f"{prefix}.points_lost.{name}", max(lost.values()), "points", "lower", POINTS_TARGET, detail)


def _psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    error = float(np.square(ours - theirs).mean())
    return min(LARGEST_PSNR, 10 * np.log10(255**2 / error)) if error else LARGEST_PSNR
