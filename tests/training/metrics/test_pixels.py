"""L1, L2, PSNR and SSIM against values by hand and an independent SSIM."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ip2p_fast.errors import BadInput
from ip2p_fast.training.metrics.pixels import at_size_of, l1, l2, masked, psnr, ssim


def flat(value, size=(16, 16)):
    return np.full((*size, 3), value, np.uint8)


def test_values_by_hand():
    a, b = flat(0), flat(0)
    b[:4] = 51  # a quarter of the picture, 0.2 apart
    assert l1(a, b) == pytest.approx(0.05)
    assert l2(a, b) == pytest.approx(0.01)
    assert psnr(a, b) == pytest.approx(20)


def test_black_and_white_are_one_apart():
    assert l1(flat(0), flat(255)) == l2(flat(0), flat(255)) == 1
    assert psnr(flat(0), flat(255)) == 0


def test_differences_do_not_wrap_around():
    assert l1(flat(3), flat(250)) == l1(flat(250), flat(3)) == pytest.approx(247 / 255)


def test_equal_pictures(draw):
    a = draw(1)
    assert l1(a, a) == l2(a, a) == 0
    assert psnr(a, a) == math.inf
    assert ssim(a, a) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [(24, 24), (11, 40), (37, 18)])
def test_ssim_is_that_of_wang_et_al(size, draw):
    a, b = draw(1, *size), draw(2, *size)
    b[3:7] = 255
    x, y = a / 255, b / 255

    def smooth(values):
        return gaussian_filter(values, sigma=(1.5, 1.5, 0), truncate=3.5, mode="reflect")

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    both = smooth(x * y) - mean_x * mean_y
    map_ = (2 * mean_x * mean_y + 0.01**2) * (2 * both + 0.03**2)
    map_ /= (mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2)
    assert ssim(a, b) == pytest.approx(map_[5:-5, 5:-5].mean(), abs=1e-5)
    assert ssim(a, b) < 0.9


def test_a_mask_hides_one_side_and_the_mean_stays_over_all_pixels():
    a, b = flat(0), flat(0)
    mask = np.zeros((16, 16), bool)
    mask[:, :4] = True
    b[:, :4], b[:, 4:8] = 255, 51
    assert l2(a, b, mask, "inside") == pytest.approx(1 / 4)
    assert l2(a, b, mask, "outside") == l2(a, b, mask) == pytest.approx(0.04 / 4)
    assert psnr(a, b, mask) == pytest.approx(20)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_what_the_mask_hides_does_not_count(metric, draw):
    a, b, mask = draw(1), draw(1), np.zeros((24, 24), bool)
    mask[5:15, 5:15] = True
    b[mask] = draw(2)[mask]
    equal = metric(a, a)
    assert metric(a, b, mask, "outside") == equal
    assert metric(a, b, mask, "inside") < equal
    assert metric(a, b) < equal


def test_masked_is_black_elsewhere(draw):
    picture, mask = draw(3), np.zeros((24, 24), bool)
    mask[2:4, 6:9] = True
    inside, outside = (masked(picture, mask, where) for where in ("inside", "outside"))
    assert inside.dtype == np.uint8
    np.testing.assert_array_equal(inside[2:4, 6:9], picture[2:4, 6:9])
    assert not inside[4:].any() and not outside[2:4, 6:9].any()
    np.testing.assert_array_equal(inside + outside, picture)


def test_a_picture_comes_to_the_size_of_another(draw):
    assert at_size_of(draw(1, 16, 24), draw(2, 40, 30)).shape == (40, 30, 3)
    same = draw(1)
    assert at_size_of(same, draw(2)) is same


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda a: l1(a, flat(0, (8, 16))), r"\[16, 16, 3\] and \[8, 16, 3\]"),
        (lambda a: l2(a, a / 255), "float64"),
        (lambda a: l2(a, a, np.zeros((8, 8), bool)), r"bool \[8, 8\].*\[16, 16\]"),
        (lambda a: l2(a, a, np.zeros((16, 16), np.uint8)), "uint8"),
        (lambda a: psnr(a, a, np.zeros((16, 16), bool), "around"), "inside, outside"),
        (lambda a: ssim(a[:10], a[:10]), "16x10.*11x11"),
    ],
)
def test_what_does_not_fit_is_refused(call, said):
    with pytest.raises(BadInput, match=said):
        call(flat(0))
