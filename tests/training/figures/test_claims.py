"""The claims on curves whose answer is known."""

import numpy as np
import pytest

from ip2p_fast.benchmarks.results import write_results
from ip2p_fast.training.figures.claims import check_claims, gap_at_equal_direction, mean_difference, rise
from ip2p_fast.training.figures.curve import Curve, Point, curve_rows

EDITS = 60
ONCE = np.ones((1, EDITS))


def curve(name, line, knob="s_I", noise=0.0, seed=0):
    """A curve through (direction, image) pairs; edits scatter about them, but alike at every point."""
    scatter = noise * np.random.default_rng(seed).standard_normal((2, EDITS))
    scatter -= scatter.mean(1, keepdims=True)
    points = [
        Point(1.0 + 0.2 * place, {"direction": x + scatter[0], "image": y + scatter[1], "psnr": 20 + y + scatter[1]})
        for place, (x, y) in enumerate(line)
    ]
    return Curve(name, knob, tuple(points))


def write(folder, figure, curves):
    write_results(folder / f"{figure}.json", curve_rows(figure, curves), "by hand")


def checked(folder):
    return {claim.claim: claim for claim in check_claims(folder)}


OURS = [(0.30, 0.80), (0.20, 0.90), (0.10, 0.95)]
BELOW = [(0.05, 0.95), (0.15, 0.85), (0.25, 0.75), (0.35, 0.65)]


def test_the_gap_is_the_mean_distance_of_two_lines():
    lines = [(0.1, 0.9), (0.3, 0.7)], [(0.0, 0.9), (0.2, 0.7), (0.4, 0.5)]
    first, second = (curve(name, line) for name, line in zip("ab", lines, strict=True))
    # y = 1 - x and y = 0.9 - x
    assert gap_at_equal_direction(first, second, ONCE)[0] == pytest.approx(0.1, abs=1e-9)
    assert gap_at_equal_direction(second, first, ONCE)[0] == pytest.approx(-0.1, abs=1e-9)
    assert gap_at_equal_direction(first, second, ONCE, "psnr")[0] == pytest.approx(0.1, abs=1e-9)


def test_a_line_that_turns_back_counts_where_it_is_highest():
    turning = curve("a", [(0.1, 0.5), (0.3, 0.5), (0.1, 0.7)])
    flat = curve("b", [(0.1, 0.5), (0.3, 0.5)])
    assert gap_at_equal_direction(turning, flat, ONCE)[0] == pytest.approx(0.1, abs=1e-9)


def test_lines_with_no_direction_similarity_in_common_have_no_gap():
    assert np.isnan(gap_at_equal_direction(curve("a", [(0.1, 1), (0.2, 1)]), curve("b", [(0.3, 1), (0.4, 1)]), ONCE))


def test_edits_are_compared_with_themselves():
    """Edits scatter ten times as far as the curves are apart, yet the same way in both."""
    full, tenth = curve("full", [(0.31, 0.8)] * 2, noise=0.2), curve("tenth", [(0.30, 0.82)] * 2, noise=0.2)
    np.testing.assert_allclose(mean_difference(full, tenth, "direction"), 0.01, atol=1e-12)
    np.testing.assert_allclose(rise([curve("a", OURS, noise=0.2)], "image"), 0.15, atol=1e-12)


def test_claims_that_hold(tmp_path):
    write(tmp_path, "curves", [curve("InstructPix2Pix", OURS, noise=0.02), curve("SDEdit", BELOW, "strength", 0.02, 1)])
    full = curve("full", OURS, noise=0.1)
    others = {"tenth": (-0.05, 0.0), "hundredth": (-0.1, 0.0), "unfiltered": (0.0, -0.05)}
    ablated = [curve(name, [(x + a, y + b) for x, y in OURS], noise=0.1) for name, (a, b) in others.items()]
    write(tmp_path, "ablations", [full, *ablated])
    write(tmp_path, "grid", [curve("s_I 1", [(0.1, 0.9), (0.2, 0.8)], "s_T", 0.1)])
    claims = check_claims(tmp_path)
    assert len(claims) == 7 and all(claim.holds for claim in claims)
    for claim in claims:
        low, high = claim.interval
        assert low - 1e-9 <= claim.effect <= high + 1e-9 and claim.edits == EDITS
    assert checked(tmp_path)["a tenth of the data lowers direction similarity"].effect == pytest.approx(0.05, abs=1e-4)


def test_claims_that_do_not_hold(tmp_path):
    write(tmp_path, "curves", [curve("InstructPix2Pix", BELOW[::-1]), curve("SDEdit", OURS, "strength")])
    same = [curve(name, OURS, noise=0.1, seed=seed) for seed, name in enumerate(("full", "tenth", "unfiltered"))]
    write(tmp_path, "ablations", [*same, curve("hundredth", [(x + 0.2, y) for x, y in OURS])])
    write(tmp_path, "grid", [curve("s_I 1", [(0.2, 0.9), (0.1, 0.8)], "s_T")])
    found = checked(tmp_path)
    holds = {name for name, claim in found.items() if claim.holds}
    assert holds == {"s_I raises image similarity"}
    above = found["InstructPix2Pix is above SDEdit in image similarity at equal direction similarity"]
    assert above.holds is False and above.interval[1] < 0
    assert found["a hundredth of the data lowers direction similarity"].interval[1] < 0


def test_an_interval_that_touches_zero_does_not_hold(tmp_path):
    """Half of the edits gain, half lose, by different amounts: the mean is above zero but not surely."""
    gains = np.where(np.arange(EDITS) % 2, 0.11, -0.1)
    low, high = (Point(at, {"direction": values, "image": values}) for at, values in ((1.0, 0 * gains), (2.0, gains)))
    write(tmp_path, "grid", [Curve("s_I 1", "s_T", (low, high))])
    claim = checked(tmp_path)["s_T raises direction similarity"]
    assert claim.effect > 0 and claim.interval[0] < 0 < claim.interval[1] and claim.holds is False


def test_what_is_missing_is_named(tmp_path):
    write(tmp_path, "ablations", [curve("full", OURS), curve("tenth", OURS)])
    found = checked(tmp_path)
    assert all(claim.holds is None and claim.interval is None for name, claim in found.items() if "tenth" not in name)
    above = found["InstructPix2Pix is above SDEdit in image similarity at equal direction similarity"]
    assert "curves.json is not there: measure it with `ip2p-fast evaluate curves`" in above.missing
    assert (
        "no curve 'unfiltered', only full, tenth"
        in found["data without the CLIP filter lower image similarity"].missing
    )


def test_curves_that_do_not_meet_are_not_compared(tmp_path):
    write(tmp_path, "curves", [curve("InstructPix2Pix", OURS), curve("SDEdit", [(0.8, 0.9), (0.9, 0.8)], "strength")])
    above = checked(tmp_path)["InstructPix2Pix is above SDEdit in image similarity at equal direction similarity"]
    assert above.holds is None and "no direction similarity in common" in above.missing


def test_curves_of_different_numbers_of_edits_are_not_compared(tmp_path):
    short = Curve("SDEdit", "strength", (Point(0.5, {"direction": np.zeros(3), "image": np.zeros(3)}),))
    write(tmp_path, "curves", [curve("InstructPix2Pix", OURS), short])
    assert "different numbers of edits" in check_claims(tmp_path)[0].missing
