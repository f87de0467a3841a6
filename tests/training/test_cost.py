"""Quality against cost: what is measured, what is not measured twice, and what is drawn from it."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

from ip2p_fast import BadInput, EditRequest
from ip2p_fast.benchmarks.results import Row, write_results
from ip2p_fast.benchmarks.timing import Spread
from ip2p_fast.cli import main
from ip2p_fast.training.pocket import cost
from ip2p_fast.training.pocket.cost import VARIANTS, Measured, Variant, measure_cost, shallow_share, student_variants
from ip2p_fast.training.pocket.cost_figures import cost_rows, draw_cost, draw_cost_table, frontier

FULL = Variant("full", "full", "steps", {"steps": 4})
DEEP = Variant("deep", "deep", "savings", {"steps": 4, "deep_refresh": 2})


def silent(stage, done, line):
    pass


def measured(name, success, rows=60.0, milliseconds=100.0):
    return Measured(
        variant=Variant(name, name.replace("_", " "), name[0], {"steps": 4}),
        success=np.array(success, bool),
        kept=np.array([True, True, True, False]),
        psnr_db=22.5,
        row_evaluations=int(rows),
        shallow_evaluations=0,
        rows=rows,
        milliseconds=Spread(milliseconds - 1, milliseconds, milliseconds + 1),
        backend="torch backend",
    )


@pytest.fixture
def rows():
    return cost_rows(
        [
            measured("all", [1, 1, 1, 1], 60.0, 100.0),
            measured("cheap", [1, 1, 0, 0], 20.0, 90.0),
            measured("bad", [1, 0, 0, 0], 30.0, 40.0),
        ]
    )


@pytest.fixture
def results(rows, tmp_path):
    path = tmp_path / "pocket-cost.json"
    write_results(path, rows, rerun="ip2p-fast evaluate cost")
    return path


def test_variants_have_names_of_their_own_and_settings_of_an_edit():
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names) == len({variant.label for variant in VARIANTS})
    known = {field.name for field in fields(EditRequest)}
    assert all(variant.settings.keys() <= known for variant in VARIANTS)
    assert VARIANTS[0].settings == {"sampler": "euler_a", "steps": 20}  # what the others are compared with


def test_a_variant_counts_its_edits_verdicts_and_its_change_on_the_same_edits(rows):
    assert [row.value for row in rows] == [0.75, 0.5, 0.25]
    assert [row.detail["target_success"] for row in rows] == [1.0, 0.5, 0.25]
    assert [row.detail["change"] for row in rows] == [0.0, -0.25, -0.5]
    assert rows[0].detail["change_interval"] == [0.0, 0.0]
    low, high = rows[1].detail["change_interval"]
    assert low < -0.25 < high


def test_the_frontier_is_what_nothing_cheaper_equals(rows):
    assert [row.id for row in frontier(rows, "rows")] == ["pocket.cost.cheap", "pocket.cost.all"]
    assert [row.id for row in frontier(rows, "milliseconds")] == [f"pocket.cost.{n}" for n in ("bad", "cheap", "all")]
    equal = [*rows, replace(rows[1], id="pocket.cost.dear", detail=rows[1].detail | {"rows": 50.0})]
    assert [row.id for row in frontier(equal, "rows")] == ["pocket.cost.cheap", "pocket.cost.all"]


def test_the_plot_and_the_table_name_every_variant(rows, results, tmp_path):
    draw_cost(tmp_path / "cost.png", rows)
    assert np.asarray(Image.open(tmp_path / "cost.png").convert("L")).std() > 10
    document = tmp_path / "doc.md"
    document.write_text("before\n<!-- cost:begin -->\nold\n<!-- cost:end -->\nafter\n")
    draw_cost_table(document, results)
    text = document.read_text()
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert {"all", "cheap", "bad"} <= lines.keys() and "old" not in text and text.endswith("after\n")
    assert lines["cheap"].endswith("| -25.0 (-75.0 to +0.0) | 22.5 | 20.0 | 90 | rows, ms |")
    assert lines["bad"].endswith("| 30.0 | 40 | ms |")


def test_a_run_that_was_cut_off_does_not_edit_again(tmp_path, monkeypatch):
    first = measure_cost("pocket", [FULL, DEEP], 3, 1, tmp_path, silent)
    assert [one.variant for one in first] == [FULL, DEEP] and len(first[0].success) == 3
    assert (first[0].row_evaluations, first[0].shallow_evaluations, first[0].rows) == (12, 0, 12.0)
    assert (first[1].row_evaluations, first[1].shallow_evaluations) == (6, 6)
    assert first[1].rows == pytest.approx(6 + 6 * shallow_share("pocket"))

    edited, edit_pairs = [], cost.edit_pairs

    def watched(editor, pairs, indices, settings):
        edited.append(settings)
        return edit_pairs(editor, pairs, indices, settings)

    monkeypatch.setattr(cost, "edit_pairs", watched)
    changed = replace(DEEP, settings={"steps": 4, "deep_refresh": 4})
    again = measure_cost("pocket", [FULL, changed], 3, 1, tmp_path, silent)
    assert edited == [changed.settings]
    np.testing.assert_array_equal(again[0].success, first[0].success)
    assert again[0].psnr_db == first[0].psnr_db


def test_a_shallow_row_of_the_pocket_model_is_a_quarter_of_a_whole_one_or_less():
    assert 0.05 < shallow_share("pocket") < 0.25


def test_students_are_variants_at_few_steps(tmp_path):
    variants = student_variants([f"one_row={tmp_path}"])
    assert [variant.name for variant in variants] == [f"one_row_{steps}" for steps in (8, 4, 2, 1)]
    assert all(variant.model == tmp_path for variant in variants)


@pytest.mark.parametrize(
    ("students", "reason"),
    [
        (["here"], "--student is 'here': NAME=FOLDER is needed"),
        (["Big Name=."], "--student is 'Big Name=.': NAME=FOLDER is needed"),
        (["a=nowhere"], "there is no folder nowhere"),
        (["a=.", "a=."], "the name a is given twice"),
        (["euler_a=."], "the name euler_a is given twice"),
    ],
)
def test_students_that_mean_nothing(students, reason):
    with pytest.raises(BadInput, match=reason.replace("(", r"\(")):
        student_variants(students)


def test_the_command_redraws_what_was_measured(results, tmp_path, capsys):
    figure = tmp_path / "figures" / "cost.png"
    assert main(["evaluate", "cost", "--redraw", "--record", str(results), "--figure", str(figure), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["edits"] == 4 and printed["variants"]["cheap"]["rows"] == 20.0
    assert figure.is_file()


def test_the_command_refuses_what_it_cannot_draw(tmp_path, capsys):
    assert main(["evaluate", "cost", "--redraw"]) == 2
    assert "need --record" in capsys.readouterr().err
    other = tmp_path / "other.json"
    write_results(other, [Row("pocket.target_success", 0.9, "share", "higher")], rerun="")
    assert main(["evaluate", "cost", "--redraw", "--record", str(other)]) == 2
    assert (
        "is no results file of ip2p-fast evaluate cost: it has a row pocket.target_success" in capsys.readouterr().err
    )
