"""Rows: which evaluations an edit asks for, and with what weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ip2p_fast.guidance import dual_guidance, plan_rows

SCALES = st.floats(-20, 20, allow_nan=False)


@given(SCALES, SCALES, st.tuples(*[st.floats(-3, 3)] * 3))
def test_rows_add_up_to_the_papers_formula_at_every_scale(text_guidance, image_guidance, predictions):
    none, image, both = predictions
    paper = none + image_guidance * (image - none) + text_guidance * (both - image)
    value = {(False, False): none, (False, True): image, (True, True): both}
    rows = dual_guidance(text_guidance, image_guidance)
    assert sum(row.weight * value[row.text, row.image] for row in rows) == pytest.approx(paper, abs=1e-9)


@pytest.mark.parametrize(
    ("text_guidance", "image_guidance", "conditions"),
    [
        (7.5, 1.5, [(True, True), (False, True), (False, False)]),
        (7.5, 1.0, [(True, True), (False, True)]),
        (1.5, 1.5, [(True, True), (False, False)]),
        (1.0, 1.0, [(True, True)]),
        (0.0, 1.0, [(False, True)]),
        (0.0, 0.0, [(False, False)]),
    ],
)
def test_rows_of_zero_weight_are_not_run(text_guidance, image_guidance, conditions):
    assert [(row.text, row.image) for row in dual_guidance(text_guidance, image_guidance)] == conditions


def test_a_plan_lays_edits_out_one_after_the_other():
    plan = plan_rows([dual_guidance(7.5, 1.5), dual_guidance(1, 1), dual_guidance(3, 1)])
    assert plan.edit.tolist() == [0, 0, 0, 1, 2, 2]
    assert plan.row_start.tolist() == [0, 3, 4, 6]
    assert plan.text.tolist() == [True, False, False, True, True, False]
    assert plan.image.tolist() == [True, True, False, True, True, True]
    np.testing.assert_allclose(plan.weight, [7.5, -6, -0.5, 1, 3, -2])


def test_plans_that_differ_in_weights_alone_have_equal_conditions():
    assert plan_rows([dual_guidance(7, 2)]).conditions == plan_rows([dual_guidance(3, 1.5)]).conditions
    assert plan_rows([dual_guidance(7, 2)]).conditions != plan_rows([dual_guidance(7, 1)]).conditions
