"""Conditioning dropout: three cases of 5% each, drawn at once."""

import torch

from ip2p_fast.training.pocket.dropout import draw_dropout

COUNT = 200_000


def shares(share: float) -> tuple[float, float, float]:
    no_text, no_image = draw_dropout(COUNT, torch.Generator().manual_seed(0), share)
    cases = (no_text & ~no_image, no_text & no_image, no_image & ~no_text)
    return tuple(float(case.float().mean()) for case in cases)


def test_text_only_both_and_image_only_are_dropped_five_times_in_a_hundred_each():
    # five standard deviations of a share of 5% over this many draws
    assert all(abs(share - 0.05) < 5 * (0.05 * 0.95 / COUNT) ** 0.5 for share in shares(0.05))


def test_the_cases_come_from_one_draw():
    no_text, no_image = draw_dropout(10_000, torch.Generator().manual_seed(3))
    r = torch.rand(10_000, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(no_text, r < 0.1)
    torch.testing.assert_close(no_image, (r >= 0.05) & (r < 0.15))


def test_no_share_drops_nothing():
    assert shares(0.0) == (0.0, 0.0, 0.0)
