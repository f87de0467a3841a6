"""How sure a share is."""

from __future__ import annotations

import math

_Z = 1.959963984540054
"""The normal quantile of a 95% interval."""


def wilson_interval(done: int, of: int) -> tuple[float, float]:
    """The 95% score interval of a share (Wilson 1927), which stays within 0 and 1 and has a width even at 0 of N."""
    if not 0 <= done <= of or not of:
        raise ValueError(f"{done} of {of} is no share")
    share, z2 = done / of, _Z**2 / of
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of)) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)
