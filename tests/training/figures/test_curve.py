"""Curves, and how they lie in a results file; shares and their intervals; pictures in a results file."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from ip2p_fast.benchmarks.results import parse_results, read_results, write_results
from ip2p_fast.errors import BadInput
from ip2p_fast.training.figures.curve import Curve, Point, curve_rows, curve_table, read_curves
from ip2p_fast.training.figures.intervals import wilson_interval
from ip2p_fast.training.figures.tiles import SIDE, pack_tiles, unpack_tiles


@pytest.fixture
def curves():
    random = np.random.default_rng(0)
    points = tuple(
        Point(at, {"direction": random.uniform(-1, 1, 20), "image": random.uniform(0, 1, 20)}) for at in (1.0, 1.25)
    )
    judged = tuple(
        replace(point, values={**point.values, "success": np.float64(random.random(20) < 0.7)}) for point in points
    )
    return [Curve("InstructPix2Pix", "s_I", judged, {"steps": 20}), Curve("SDEdit", "strength", points)]


def test_a_results_file_gives_back_every_edit(curves, tmp_path):
    write_results(tmp_path / "curves.json", curve_rows("curves", curves), "by hand")
    found = read_curves(read_results(tmp_path / "curves.json").rows, "curves.json")
    assert [(curve.name, curve.knob, curve.settings) for curve in found] == [
        ("InstructPix2Pix", "s_I", {"steps": 20}),
        ("SDEdit", "strength", {}),
    ]
    for before, after in zip(curves, found, strict=True):
        assert before.measures == after.measures and after.edits == 20
        assert [point.at for point in after.points] == [1.0, 1.25]
        for measure in before.measures:
            np.testing.assert_allclose(after.values(measure), before.values(measure), atol=5.1e-5)


def test_a_row_has_the_mean_and_its_interval(curves):
    row = curve_rows("curves", curves)[0]
    assert row.id == "curves.instructpix2pix.s_i_1.direction"
    assert row.value == curves[0].points[0].values["direction"].mean()
    low, high = row.detail["interval"]
    assert low < row.value < high


def test_a_row_that_lacks_its_values_is_named(curves):
    row = curve_rows("curves", curves)[0]
    faulty = replace(row, detail={name: value for name, value in row.detail.items() if name != "values"})
    with pytest.raises(BadInput, match="file: row curves.instructpix2pix.s_i_1.direction is no point"):
        read_curves([faulty], "file")


def test_what_a_curve_lacks_is_named(curves):
    with pytest.raises(BadInput, match="SDEdit has no psnr, only direction, image"):
        curves[1].values("psnr")


def test_a_table_has_a_line_a_point_and_no_number_where_none_was_measured(curves):
    head, rule, *lines = curve_table(curves).splitlines()
    assert "edits that do as asked" in head and len(lines) == 4
    assert lines[0].startswith("| InstructPix2Pix | s_I 1 | 20 |") and "%" in lines[0]
    assert lines[2].endswith("|  |") and len({line.count("|") for line in (head, rule, *lines)}) == 1


@pytest.mark.parametrize(("done", "of"), [(0, 10), (10, 10), (3, 7), (50, 60)])
def test_wilsons_interval_is_scipys(done, of):
    expected = binomtest(done, of).proportion_ci(method="wilson")
    assert wilson_interval(done, of) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_of_nothing_has_no_interval():
    with pytest.raises(ValueError):
        wilson_interval(0, 0)


def test_pictures_come_back_as_they_were(draw):
    pictures = [draw(seed, 24, 16) for seed in range(3)]
    for before, after in zip(pictures, unpack_tiles(pack_tiles(pictures), "file"), strict=True):
        np.testing.assert_array_equal(before, after)


def test_large_pictures_are_kept_small(draw):
    tiles = unpack_tiles(pack_tiles([draw(0, 400, 800), draw(1, 16, 16)]), "file")
    assert [tile.shape for tile in tiles] == [(SIDE // 2, SIDE, 3)] * 2


@pytest.mark.parametrize("packed", [{}, {"count": 2, "png": "!"}, {"count": 0, "png": ""}])
def test_pictures_that_cannot_be_read_are_named(packed):
    with pytest.raises(BadInput, match="file: its pictures cannot be read"):
        unpack_tiles(packed, "file")


def test_rows_are_what_results_files_allow(curves):
    content = {"schema": 1, "created": "", "commit": None, "machine": {}, "versions": {}}
    rows = [vars(row) for row in curve_rows("curves", curves)]
    assert len(parse_results({**content, "rows": rows}, "test").rows) == 10
