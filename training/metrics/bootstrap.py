"""How sure a mean is: intervals by drawing cases again."""

from __future__ import annotations

import numpy as np

RESAMPLES = 2000
_AT_ONCE = 2**22
"""Drawn values in memory at a time."""


def bootstrap_interval(values: np.ndarray, share: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """The percentile interval of the mean (Efron and Tibshirani 1993, chapter 13), of RESAMPLES draws.

    Each draw takes as many values as there are, with repetition. Quantiles are values that were drawn, so that infinite
    ones (PSNR of equal pictures) may take part.

    Args:
        values: [N] floats, N at least 1, no NaN.
        share: of the draws whose mean lies within, from 0 to 1.
        seed: the same values and seed give the same interval.

    Returns:
        (low, high)
    """
    if not len(values) or np.isnan(values).any() or not 0 < share < 1:
        raise ValueError("an interval needs values, none of them NaN, and a share above 0 and below 1")
    rng = np.random.default_rng(seed)
    rows = max(1, _AT_ONCE // len(values))
    means = np.concatenate(
        [
            values[rng.integers(len(values), size=(min(rows, RESAMPLES - first), len(values)))].mean(1)
            for first in range(0, RESAMPLES, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2], method="inverted_cdf")
    return float(low), float(high)
