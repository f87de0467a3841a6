"""What the reader says of pairs: rendered ones, of which everything is known."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ip2p_fast.checkpoints import POCKET
from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.forms.record import PairRecord
from ip2p_fast.training.pocket import language
from ip2p_fast.training.pocket.data import draw_pairs
from ip2p_fast.training.pocket.pair_audit import audit
from ip2p_fast.training.pocket.reader import load_reader

COUNT = 24


@pytest.fixture(scope="module")
def reader():
    return load_reader(POCKET / "reader")


@pytest.fixture(scope="module")
def records():
    pairs = draw_pairs("held-out", COUNT, 64)
    return [
        PairRecord(
            f"pair-{i}",
            *(_png(picture) for picture in pairs.pixels[i]),
            "an edit",
            language.caption(pairs.scene(i)),
            language.caption(pairs.scene(i, after=True)),
        )
        for i in range(COUNT)
    ]


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def test_rendered_pairs_are_as_captioned_changed_and_kept(reader, records):
    found = audit(reader, records)
    assert found.pairs == COUNT
    assert min(found.as_captioned, found.changed, found.kept) >= 0.95


def test_a_pair_whose_picture_after_is_the_one_before_keeps_all_and_changes_nothing(reader, records):
    found = audit(reader, [replace(record, edited_image=record.input_image) for record in records])
    assert found.kept == 1 and found.changed == 0


def test_pictures_of_other_pairs_do_not_keep_the_rest(reader, records):
    others = [replace(one, edited_image=other.edited_image) for one, other in zip(records, records[1:], strict=False)]
    assert audit(reader, others).kept < 0.2


def test_captions_in_other_words_are_left_out_and_counted(reader, records):
    assert audit(reader, [replace(records[0], caption="a photograph of a street"), *records[1:]]).pairs == COUNT - 1
    with pytest.raises(BadInput, match="grammar"):
        audit(reader, [replace(records[0], caption=None)])
