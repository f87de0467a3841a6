"""The CPU kernels execute no more instructions than they did: a slowdown that no clock is steady enough to show."""

import shutil

import pytest

from ip2p_fast.benchmarks.instructions import Counts, count_instructions, grown, stored


@pytest.mark.skipif(not (shutil.which("valgrind") and shutil.which("cc")), reason="valgrind or a C compiler is absent")
def test_no_kernel_has_grown():
    pytest.importorskip("ip2p_fast._C", reason="the extension is not built")
    before, now = stored(), count_instructions()
    assert now.calls.keys() == before.calls.keys()
    if now.built != before.built:
        pytest.skip(f"counts are stored for {before.built}, and this is {now.built}")
    assert not grown(before, now)


def test_growth_is_told_beyond_the_limit_alone():
    before = Counts({}, {"a": 1000, "b": 1000, "c": 1000, "gone": 1000})
    now = Counts({}, {"a": 1049, "b": 1060, "c": 500, "new": 1000})
    assert grown(before, now) == {"b": pytest.approx(0.06)}
