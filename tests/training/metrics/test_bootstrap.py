"""Intervals of a mean."""

import math

import numpy as np
import pytest
from scipy import stats

from ip2p_fast.training.metrics import bootstrap
from ip2p_fast.training.metrics.bootstrap import bootstrap_interval

VALUES = np.random.default_rng(0).gamma(2.0, size=300)


def test_it_agrees_with_scipy():
    low, high = bootstrap_interval(VALUES)
    rng = np.random.default_rng(1)
    theirs = stats.bootstrap((VALUES,), np.mean, n_resamples=2000, method="percentile", rng=rng).confidence_interval
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.1 * width)
    assert high == pytest.approx(theirs.high, abs=0.1 * width)
    assert low < VALUES.mean() < high


def test_a_seed_gives_one_interval():
    assert bootstrap_interval(VALUES, seed=3) == bootstrap_interval(VALUES, seed=3)
    assert bootstrap_interval(VALUES, seed=3) != bootstrap_interval(VALUES, seed=4)


def test_a_larger_share_is_wider():
    narrow, wide = (bootstrap_interval(VALUES, share) for share in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_many_values_are_drawn_in_parts(monkeypatch):
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 7 * len(VALUES))
    low, high = bootstrap_interval(VALUES)
    assert low < VALUES.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * VALUES.std() / math.sqrt(len(VALUES)), rel=0.15)


def test_one_value_is_sure_of_itself_and_infinite_ones_may_take_part():
    assert bootstrap_interval(np.array([0.25])) == (0.25, 0.25)
    assert bootstrap_interval(np.array([1.0, 1.0, math.inf])) == (1.0, math.inf)


@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_without_values_there_is_no_interval(values):
    with pytest.raises(ValueError, match="needs values"):
        bootstrap_interval(np.array(values))
