"""Scores of edits, and data sets in place of the pocket world."""

import io

import numpy as np
import pytest
from PIL import Image

from ip2p_fast.checkpoints import POCKET
from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.forms.formats import writer_for
from ip2p_fast.training.dataset.forms.record import PairRecord
from ip2p_fast.training.dataset.pairs.clip_scores import ClipScorer
from ip2p_fast.training.figures.cases import read_cases
from ip2p_fast.training.figures.scoring import CaseScorer
from ip2p_fast.training.metrics.similarity import similarities
from ip2p_fast.training.pocket.reader import load_reader


def test_scores_are_those_of_the_metrics(clip_folder, pairs_file, draw):
    cases, clip = read_cases(str(pairs_file), 10), ClipScorer(clip_folder)
    edited = [draw(100 + place, 24, 16) for place in range(len(cases))]
    scores = CaseScorer(clip, cases).score(edited)
    assert set(scores) == {"direction", "image"}
    for place, case in enumerate(cases.cases):
        expected = similarities(clip, (case.source_caption, case.target_caption), case.source, edited[place])
        assert scores["direction"][place] == pytest.approx(expected.direction, abs=1e-6)
        assert scores["image"][place] == pytest.approx(expected.image, abs=1e-6)


def test_the_ground_truth_does_as_asked_and_the_input_does_not():
    cases = read_cases(None, 8)
    scorer = CaseScorer(ClipScorer("pocket"), cases, load_reader(POCKET / "reader"))
    truth = scorer.score([case.target for case in cases.cases])
    assert truth["success"].all() and truth["kept"].all() and (truth["psnr"] == 60).all()
    assert truth["direction"].mean() > 0.5
    same = scorer.score([case.source for case in cases.cases])
    assert not same["success"].any() and same["kept"].all() and (same["psnr"] < 60).all()
    np.testing.assert_allclose(same["image"], 1)
    np.testing.assert_allclose(same["direction"], 0, atol=1e-6)


def test_pairs_without_captions_are_passed_over(pairs_file):
    cases = read_cases(str(pairs_file), 10)
    assert len(cases) == 4 and cases.pairs is None
    assert [case.source_caption for case in cases.cases] == [f"a red cat {i}" for i in range(4)]
    assert len(read_cases(str(pairs_file), 2)) == 2


def test_a_data_set_without_captions_is_refused(tmp_path, draw):
    file = io.BytesIO()
    Image.fromarray(draw(0)).save(file, "PNG")
    record = PairRecord("a", file.getvalue(), file.getvalue(), "make it night")
    writer_for(tmp_path / "bare.tar", "webdataset")([record], tmp_path / "bare.tar")
    with pytest.raises(BadInput, match="bare.tar has no pair with both captions"):
        read_cases(str(tmp_path / "bare.tar"), 5)
