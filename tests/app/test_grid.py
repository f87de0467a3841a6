"""A grid over both scales: which cells it has, where they lie on the sheet, and which ranges are refused."""

import numpy as np
import pytest
from PIL import Image

from ip2p_fast.app.grid import Grid, cell_at, cell_size, sheet, spread
from ip2p_fast.errors import BadInput

WIDE = Image.new("RGB", (96, 64), "blue")
GRID = Grid(spread("text guidance", 1.0, 4.0, 4), spread("image guidance", 1.0, 2.0, 3))


def test_scales_are_spread_evenly_with_both_ends():
    assert GRID.text == (1.0, 2.0, 3.0, 4.0) and GRID.image == (1.0, 1.5, 2.0)
    assert spread("text guidance", 1.0, 2.0, 4) == (1.0, 1.33, 1.67, 2.0)
    assert spread("text guidance", 7.5, 7.5, 1) == (7.5,)


def test_cells_run_along_text_guidance_first():
    assert len(GRID.cells) == 12
    assert GRID.cells[:5] == ((1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (4.0, 1.0), (1.0, 1.5))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((None, 2.0, 3), "has no range"),
        ((1.0, 2.0, 0), "has 0 values: 1 to 8"),
        ((1.0, 2.0, 9), "has 9 values"),
        ((1.0, 2.0, 2.5), "has 2.5 values"),
        ((2.0, 1.0, 3), "the first must be the smaller"),
        ((2.0, 2.0, 2), "the first must be the smaller"),
    ],
)
def test_what_is_no_range_is_refused(given, words):
    with pytest.raises(BadInput, match=words):
        spread("text guidance", *given)


def test_each_picture_lies_in_its_cell_of_the_sheet():
    greys = {number: Image.new("RGB", WIDE.size, (20 * number,) * 3) for number in range(12)}
    drawn = np.asarray(sheet(GRID, WIDE, greys, "make it night"))
    seen = {}
    for y in range(0, drawn.shape[0], 7):
        for x in range(0, drawn.shape[1], 7):
            number = cell_at(GRID, WIDE, x, y)
            if number is not None:
                seen.setdefault(number, set()).add(tuple(drawn[y, x]))
    assert seen == {number: {(20 * number,) * 3} for number in range(12)}


def test_cells_keep_the_aspect_and_those_to_come_are_blank():
    assert cell_size(WIDE) == (256, 171)
    whole, empty = sheet(GRID, WIDE, {0: WIDE}, "x"), sheet(GRID, WIDE, {}, "x")
    assert whole.size == empty.size and whole.tobytes() != empty.tobytes()


def test_a_title_that_is_too_long_is_cut():
    one = Grid((1.0,), (1.0,))
    assert sheet(one, WIDE, {}, "long " * 200).size == sheet(one, WIDE, {}, "short").size
