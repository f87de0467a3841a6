"""Shares by kind of edit, what changes unasked, and where it drifts, on verdicts that are known."""

import numpy as np
import pytest

from ip2p_fast.training.figures.cases import balanced_pairs, pocket_cases
from ip2p_fast.training.figures.kinds import ByKind, bias_rows, limit_rows
from ip2p_fast.training.pocket.data import draw_pairs
from ip2p_fast.training.pocket.evaluate import Verdicts, spared_attributes
from ip2p_fast.training.pocket.language import parse_caption
from ip2p_fast.training.pocket.scene import ATTRIBUTES
from ip2p_fast.training.pocket.split import KINDS

WEATHER = list(ATTRIBUTES).index("weather")
FOG = ATTRIBUTES["weather"].index("fog")


@pytest.fixture(scope="module")
def pairs():
    return balanced_pairs(2)


@pytest.fixture(scope="module")
def perfect(pairs):
    return Verdicts(pairs.labels[:, 1].copy(), np.ones(len(pairs), bool), np.zeros(pairs.labels[:, 1].shape, bool))


@pytest.fixture
def foggy(pairs, perfect):
    """Every edit does as asked, and all but those of the weather bring fog."""
    values = perfect.values.copy()
    spared = spared_attributes(pairs.kinds)
    values[spared[:, WEATHER], WEATHER] = FOG
    changed = (values != pairs.labels[:, 0]) & spared
    return ByKind(pairs, Verdicts(values, perfect.success, changed), perfect, {})


def test_every_kind_comes_equally_often_and_first_come_first(pairs):
    assert [int((pairs.kinds == kind).sum()) for kind in range(len(KINDS))] == [2] * len(KINDS)
    every = draw_pairs("held-out", 60, 64)
    first = np.flatnonzero(every.kinds == KINDS.index("colour"))[0]
    mine = np.flatnonzero(pairs.kinds == KINDS.index("colour"))[0]
    np.testing.assert_array_equal(pairs.pixels[mine], every.pixels[first])


def test_captions_say_the_scenes_before_and_after(pairs):
    for index, case in enumerate(pocket_cases(pairs).cases):
        assert parse_caption(case.source_caption) == pairs.scene(index)
        assert parse_caption(case.target_caption) == pairs.scene(index, after=True)
        assert case.group == KINDS[pairs.kinds[index]]


def test_limits_count_by_kind(foggy):
    rows = {row.id: row for row in limit_rows(foggy)}
    assert len(rows) == 3 * len(KINDS)
    for kind in KINDS:
        kept = ~foggy.edited.changed.any(1)[foggy.pairs.kinds == KINDS.index(kind)]
        assert rows[f"limits.{kind}.success"].value == 1
        assert rows[f"limits.{kind}.kept"].value == rows[f"limits.{kind}.both"].value == kept.mean()
    low, high = rows["limits.count.success"].detail["interval"]
    assert low < 0.4 and high == 1


def test_bias_finds_what_changes_and_where_it_drifts(foggy):
    rows = {row.id: row for row in bias_rows(foggy)}
    spared = spared_attributes(np.arange(len(KINDS)))
    assert len(rows) == spared.sum() + len(ATTRIBUTES)
    assert "bias.weather.weather" not in rows and "bias.remove.colour" not in rows
    drift = rows["bias.drift.weather"]
    left = foggy.pairs.kinds != KINDS.index("weather")
    already = (foggy.pairs.labels[left, 0, WEATHER] == FOG).mean()
    assert drift.detail["to"] == "fog" and drift.value == pytest.approx(1 - already)
    assert sum(drift.detail["by_value"].values()) == pytest.approx(0)
    assert drift.detail["changed"] == pytest.approx(1 - already) and drift.detail["autoencoder"] == 0
    assert rows["bias.drift.style"].value == 0 and rows["bias.setting.style"].value == 0
    assert rows["bias.setting.weather"].value == foggy.edited.changed[foggy.pairs.kinds == 0, WEATHER].mean()
