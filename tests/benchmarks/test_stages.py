"""Stages of an edit: what a watch counts, and that the parts make the whole."""

import pytest

from ip2p_fast.benchmarks import stages
from ip2p_fast.benchmarks.bench import Bench
from ip2p_fast.benchmarks.stage_names import STAGES
from ip2p_fast.benchmarks.stages import Watch, measure


def test_a_watch_adds_up_the_calls_of_a_stage_and_begins_anew_when_it_is_taken(monkeypatch):
    now = 0.0

    def work(seconds, result):
        nonlocal now
        now += seconds
        return result

    monkeypatch.setattr(stages.time, "perf_counter", lambda: now)
    watch = Watch()
    unet = watch.around("UNet", work)
    assert [unet(2.0, "a"), unet(3.0, result="b"), watch.around("texts", work)(1.0, "c")] == ["a", "b", "c"]
    assert watch.take() == {"UNet": 5.0, "texts": 1.0}
    assert watch.take() == {}


@pytest.mark.slow
def test_the_parts_of_an_edit_make_the_whole():
    rows = measure(Bench(quick=True))
    contenders = {row.detail["title"] for row in rows}
    assert contenders == {"diffusers (float32)", "ours (bfloat16)", "ours (int8)"}
    for title in contenders:
        parts = {row.detail["stage"]: row.value for row in rows if row.detail["title"] == title}
        assert tuple(parts) == STAGES and min(parts.values()) >= 0  # texts are remembered
        whole = next(row.detail["edit_ms"] for row in rows if row.detail["title"] == title)
        assert sum(parts.values()) == pytest.approx(whole, rel=0.2)
