"""CLIP's cosines against transformers' own model and processor, and the formula in numpy."""

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from ip2p_fast.training.dataset.pairs.clip_scores import ClipScorer
from ip2p_fast.training.metrics.preprocessing import feed_of, square
from ip2p_fast.training.metrics.similarity import image_image, similarities, text_image

CAPTIONS = ("a cat in winter", "a dog at night")


@pytest.fixture(scope="module")
def scorer(clip_folder):
    return ClipScorer(clip_folder)


@pytest.fixture(scope="module")
def embed(clip_folder):
    """Unit vectors by transformers alone."""
    clip, tokenizer = CLIPModel.from_pretrained(clip_folder).eval(), CLIPTokenizer.from_pretrained(clip_folder)
    process = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})

    @torch.no_grad()
    def run(thing):
        if isinstance(thing, str):
            ids = tokenizer(thing, padding="max_length", max_length=77, return_tensors="pt").input_ids
            found = clip.get_text_features(ids)
        else:
            found = clip.get_image_features(torch.tensor(np.array(process(images=[thing]).pixel_values)))
        vector = getattr(found, "pooler_output", found)[0].double().numpy()
        return vector / np.linalg.norm(vector)

    return run


@pytest.mark.parametrize("sizes", [((24, 24), (24, 24)), ((40, 20), (16, 32)), ((16, 16), (64, 48))])
def test_the_cosines_are_those_of_clip_with_its_own_preprocessing(scorer, embed, draw, sizes):
    before, after = draw(1, *sizes[0]), draw(2, *sizes[1])
    found = similarities(scorer, CAPTIONS, before, after)
    image_0, image_1, text_0, text_1 = map(embed, (before, after, *CAPTIONS))
    change, asked = image_1 - image_0, text_1 - text_0
    direction = change @ asked / np.linalg.norm(change) / np.linalg.norm(asked)
    assert found.direction == pytest.approx(direction, abs=2e-4)
    assert found.image == pytest.approx(image_0 @ image_1, abs=1e-5)
    assert image_image(scorer, before, after) == pytest.approx(image_0 @ image_1, abs=1e-5)
    assert found.text_image_0 == pytest.approx(image_0 @ text_0, abs=1e-5)
    assert found.text_image_1 == pytest.approx(image_1 @ text_1, abs=1e-5)
    assert text_image(scorer, CAPTIONS[1], after) == pytest.approx(image_1 @ text_1, abs=1e-5)


def test_an_edit_that_changes_nothing_has_no_direction(scorer, draw):
    found = similarities(scorer, CAPTIONS, draw(1), draw(1))
    assert found.direction == 0
    assert found.image == pytest.approx(1, abs=1e-6)


def test_an_edit_undone_goes_the_opposite_way(scorer, draw):
    there = similarities(scorer, CAPTIONS, draw(1), draw(2)).direction
    back = similarities(scorer, CAPTIONS[::-1], draw(1), draw(2)).direction
    assert abs(there) > 1e-3
    assert back == pytest.approx(-there, abs=1e-6)


@pytest.mark.parametrize("size", [(24, 24), (48, 24), (30, 50), (10, 18), (16, 16)])
def test_a_square_is_what_transformers_cuts_out(size, draw):
    picture = draw(4, *size)
    process = CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_normalize=False, do_rescale=False
    )
    expected = np.array(process(images=[picture]).pixel_values)[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(square(picture, 16), expected)


def test_a_larger_short_side_leaves_a_margin():
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[8:24, 8:24] = 200
    assert square(picture, 16, 32).min() == 200


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ('{"size": 224, "image_mean": [0.5, 0.5, 0.5]}', 224),
        ('{"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.5, 0.5]}', 32),
        ('{"size": {"shortest_edge": 256}, "crop_size": {"height": 224}, "image_mean": [0.5, 0.5, 0.5]}', 224),
    ],
)
def test_the_folder_says_what_its_model_is_fed(text, side, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(text)
    feed = feed_of(str(tmp_path))
    assert (feed.side, list(feed.mean), feed.std) == (side, [0.5] * 3, (0.229, 0.224, 0.225))


def test_a_folder_that_says_nothing_is_fed_as_imagenet_models_are(tmp_path):
    assert feed_of(str(tmp_path)).side is None
    assert feed_of(str(tmp_path)).mean == (0.485, 0.456, 0.406)
