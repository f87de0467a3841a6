"""Which cells of the matrix come first, how often each is measured, and who shares the memory."""

import pytest

from ip2p_fast.benchmarks.cells import FEWEST, MOST, Cell, by_importance, heats, rounds_in


def test_cells_that_leave_the_first_in_fewer_respects_come_earlier():
    cells = by_importance((512, 256), (1, 4, 16), (20, 50))
    assert cells[0] == Cell(512, 1, 20)
    assert set(cells[1:5]) == {Cell(256, 1, 20), Cell(512, 4, 20), Cell(512, 16, 20), Cell(512, 1, 50)}
    assert cells[-1] == Cell(256, 16, 50)
    assert len(set(cells)) == len(cells) == 12


@pytest.mark.parametrize(
    "round_seconds, left, cells, expected",
    [(1.0, 60.0, 6, 10), (1.0, 6000.0, 6, MOST), (50.0, 60.0, 6, FEWEST), (1.0, -5.0, 1, FEWEST)],
)
def test_a_cell_takes_its_share_of_the_time(round_seconds, left, cells, expected):
    assert rounds_in(round_seconds, left, cells) == expected


def test_contestants_that_do_not_fit_in_memory_together_take_turns_beside_the_reference():
    peaks = {"exact": 2.0, "a": 3.0, "b": 4.0, "c": 1.0, "huge": 50.0, "d": 1.0}
    assert heats(peaks, 10.0, "exact") == [["exact", "a", "b", "c"], ["exact", "huge"], ["exact", "d"]]
    assert heats(peaks, 100.0, "exact") == [list(peaks)]
    assert heats({"exact": 2.0}, 1.0, "exact") == [["exact"]]
