"""The paper's claims as numbers: each an effect, its 95% interval over edits, and whether the interval says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ip2p_fast.benchmarks.results import read_results
from ip2p_fast.errors import BadInput

from .curve import Curve, read_curves

DRAWS = 2000
_GRID = 25
"""Direction similarities at which two curves are compared."""
_MOST_LOST = 0.05
"""Of the draws, those in which two curves have no direction similarity in common."""


@dataclass(frozen=True)
class Claim:
    """holds: the interval lies above zero; None where `missing` says why nothing can be said.

    effect: what the claim says is above zero, over all edits. interval: its 95% bootstrap interval.
    """

    claim: str
    holds: bool | None
    effect: float | None = None
    interval: tuple[float, float] | None = None
    edits: int = 0
    missing: str | None = None

    def as_json(self) -> dict[str, Any]:
        """An object of the list that `ip2p-fast evaluate claims --json` prints."""
        return asdict(self)


def check_claims(results: Path) -> list[Claim]:
    """All claims, from curves.json, ablations.json and grid.json of a folder."""
    return [_checked(results / f"{file}.json", file, claim, effects) for claim, file, effects in _CLAIMS]


def gap_at_equal_direction(first: Curve, second: Curve, draws: np.ndarray, measure: str = "image") -> np.ndarray:
    """How far a measure of one curve is above another's, the mean over the direction similarities that both reach.

    A curve is the line through the means of its points. Where it passes a direction similarity more than once its
    highest value there counts.

    Args:
        draws: [B, N] how often each edit counts in each draw.

    Returns:
        [B]; NaN where the curves have no direction similarity in common.
    """
    lines = [_means(curve, measure, draws) for curve in (first, second)]  # (x, y), [B, points] each
    low = np.max([x.min(1) for x, _ in lines], axis=0)
    high = np.min([x.max(1) for x, _ in lines], axis=0)
    grid = low[:, None] + (high - low)[:, None] * (np.arange(_GRID) + 0.5) / _GRID  # [B, G]
    with np.errstate(invalid="ignore"):  # where nothing is in common
        gap = (_height(*lines[0], grid) - _height(*lines[1], grid)).mean(1)
    return np.where(high > low, gap, np.nan)


def mean_difference(first: Curve, second: Curve, measure: str) -> np.ndarray:
    """[N]: of each edit, the mean over all points of a measure by `first` less that by `second`."""
    return first.values(measure).mean(0) - second.values(measure).mean(0)


def rise(curves: Sequence[Curve], measure: str) -> np.ndarray:
    """[N]: of each edit, a measure at the knob's highest setting less that at its lowest, the mean over curves."""
    return np.mean([_rise(curve, measure) for curve in curves], axis=0)


Effects = Callable[[Sequence[Curve], np.ndarray], np.ndarray]
"""Curves of a file, draws [B, N] -> the effect in each draw, [B]."""


def _of_edits(effect: Callable[[Sequence[Curve]], np.ndarray]) -> Effects:
    """From an effect of each edit, [N]."""
    return lambda curves, draws: draws @ effect(curves) / draws.sum(1)


def _named(curves: Sequence[Curve], name: str) -> Curve:
    found = next((curve for curve in curves if curve.name == name), None)
    if found is None:
        raise BadInput(f"there is no curve {name!r}, only {', '.join(curve.name for curve in curves) or 'none'}")
    return found


def _both(curves: Sequence[Curve]) -> tuple[Curve, Curve]:
    return _named(curves, "InstructPix2Pix"), _named(curves, "SDEdit")


_CLAIMS: tuple[tuple[str, str, Effects], ...] = (
    (
        "InstructPix2Pix is above SDEdit in image similarity at equal direction similarity",
        "curves",
        lambda curves, draws: gap_at_equal_direction(*_both(curves), draws),
    ),
    (
        "InstructPix2Pix is above SDEdit in PSNR to the ground truth at equal direction similarity",
        "curves",
        lambda curves, draws: gap_at_equal_direction(*_both(curves), draws, "psnr"),
    ),
    (
        "a tenth of the data lowers direction similarity",
        "ablations",
        _of_edits(lambda curves: mean_difference(_named(curves, "full"), _named(curves, "tenth"), "direction")),
    ),
    (
        "a hundredth of the data lowers direction similarity",
        "ablations",
        _of_edits(lambda curves: mean_difference(_named(curves, "full"), _named(curves, "hundredth"), "direction")),
    ),
    (
        "data without the CLIP filter lower image similarity",
        "ablations",
        _of_edits(lambda curves: mean_difference(_named(curves, "full"), _named(curves, "unfiltered"), "image")),
    ),
    (
        "s_T raises direction similarity",
        "grid",
        _of_edits(lambda curves: rise([curve for curve in curves if curve.knob == "s_T"], "direction")),
    ),
    (
        "s_I raises image similarity",
        "curves",
        _of_edits(lambda curves: rise([_named(curves, "InstructPix2Pix")], "image")),
    ),
)


def _checked(path: Path, figure: str, claim: str, effects: Effects) -> Claim:
    if not path.is_file():
        return Claim(claim, None, missing=f"{path} is not there: measure it with `ip2p-fast evaluate {figure}`")
    try:
        curves = read_curves(read_results(path).rows, str(path))
        if not curves:
            raise BadInput("it holds no curves")
        edits = curves[0].edits
        if any(curve.edits != edits for curve in curves):
            raise BadInput("its curves are of different numbers of edits, so they cannot be compared edit by edit")
        found = effects(curves, _draws(edits))
    except BadInput as error:
        return Claim(claim, None, missing=f"{path}: {error}")
    whole, drawn = found[0], found[1:]
    lost = np.isnan(drawn).mean()
    if np.isnan(whole) or lost > _MOST_LOST:
        return Claim(claim, None, edits=edits, missing=f"{path}: the curves have no direction similarity in common")
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Claim(claim, bool(low > 0), float(whole), (float(low), float(high)), edits)


def _draws(edits: int) -> np.ndarray:
    """All edits once, then DRAWS bootstrap draws of them: [1 + DRAWS, N]"""
    drawn = np.random.default_rng(0).multinomial(edits, np.full(edits, 1 / edits), size=DRAWS)
    return np.concatenate([np.ones((1, edits)), drawn])


def _means(curve: Curve, measure: str, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Direction similarity and a measure of each point in each draw, [B, points] each."""
    total = draws.sum(1, keepdims=True)
    return draws @ curve.values("direction").T / total, draws @ curve.values(measure).T / total


def _height(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The highest y of polylines x, y [B, points] at `at` [B, G]: [B, G]"""
    left, right = x[:, None, :-1], x[:, None, 1:]  # [B, 1, segments]
    span = np.where(right == left, 1.0, right - left)
    share = (at[:, :, None] - left) / span  # [B, G, segments]
    height = y[:, None, :-1] + share * (y[:, None, 1:] - y[:, None, :-1])
    crossed = (share >= 0) & (share <= 1) & (right != left)
    return np.where(crossed, height, -np.inf).max(2)


def _rise(curve: Curve, measure: str) -> np.ndarray:
    points = sorted(curve.points, key=lambda point: point.at)
    return points[-1].values[measure] - points[0].values[measure]
