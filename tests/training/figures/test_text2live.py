"""Text2Live: the layer, its losses, and that an edit follows its text."""

import numpy as np
import pytest
import torch
from torch import nn

from ip2p_fast.training.dataset.pairs.clip_scores import ClipScorer
from ip2p_fast.training.figures.text2live import (
    DifferentiableClip,
    EditLayer,
    Training,
    _views,
    composed,
    edit_loss,
    text2live,
)

CAPTIONS = ("a cat in winter", "a blue dog at night")


@pytest.fixture(scope="module")
def clip(clip_folder):
    return DifferentiableClip(clip_folder)


@pytest.fixture
def views(draw):
    return torch.from_numpy(np.stack([draw(seed) for seed in range(2)])).permute(0, 3, 1, 2) / 255


class Fixed(nn.Module):
    """A layer of one colour and one opacity."""

    def __init__(self, colour, opacity):
        super().__init__()
        self.colour, self.opacity = nn.Parameter(torch.tensor(colour)), nn.Parameter(torch.tensor(opacity))

    def forward(self, x):
        return self.colour.view(1, 3, 1, 1).expand_as(x), self.opacity.expand_as(x[:, :1])


def test_it_embeds_as_the_scorer_does(clip, clip_folder, draw):
    pictures = [draw(seed, 16, 16) for seed in range(3)]
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
    expected = ClipScorer(clip_folder).embed_pictures(pictures)
    torch.testing.assert_close(clip.pictures(x)[0].double(), expected, atol=1e-5, rtol=0)


def test_a_layer_without_opacity_leaves_the_picture(views):
    colour = torch.rand(2, 3, 16, 16)
    assert torch.equal(composed(colour, torch.zeros(2, 1, 16, 16), views), views)
    assert torch.equal(composed(colour, torch.ones(2, 1, 16, 16), views), colour)


def test_a_layer_has_the_size_of_its_picture():
    colour, opacity = EditLayer(8, 3)(torch.rand(1, 3, 20, 28))
    assert colour.shape == (1, 3, 20, 28) and opacity.shape == (1, 1, 20, 28)
    assert min(colour.min(), opacity.min()) >= 0 and max(colour.max(), opacity.max()) <= 1


def test_the_loss_is_the_papers_sum(clip, views):
    before, after = (clip.texts(caption, ("{}",))[0] for caption in CAPTIONS)
    layer = Fixed((0.9, 0.2, 0.1), 0.4)
    with torch.no_grad():
        loss = edit_loss(clip, layer, views, before, after, after)
        red = torch.tensor((0.9, 0.2, 0.1)).view(1, 3, 1, 1).expand_as(views)
        green = torch.zeros_like(views)
        green[:, 1] = 1
        (source, source_tokens), (edited, tokens) = clip.pictures(views), clip.pictures(0.4 * red + 0.6 * views)
        (alone, _) = clip.pictures(0.4 * red + 0.6 * green)

    def far(a, b):
        return (1 - torch.cosine_similarity(a, b[None])).mean()

    def similarity(found):
        unit = found / found.norm(dim=-1, keepdim=True)
        return unit @ unit.mT

    structure = (similarity(tokens) - similarity(source_tokens)).square().mean()
    sparse = 0.06 * (0.4 + 2 / (1 + np.exp(-2.0)) - 1)
    expected = far(edited, after) + far(edited - source, after - before) + far(alone, after) + 2 * structure + sparse
    torch.testing.assert_close(loss, expected.float())
    assert structure > 0


def test_gradients_reach_the_layer_and_not_clip(clip, views):
    layer = Fixed((0.9, 0.2, 0.1), 0.4)
    before, after = (clip.texts(caption, ("{}",))[0] for caption in CAPTIONS)
    edit_loss(clip, layer, views, before, after, after).backward()
    assert layer.colour.grad.abs().sum() > 0 and layer.opacity.grad.abs() > 0
    assert all(parameter.grad is None for parameter in clip._clip.parameters())


def test_views_are_the_picture_and_cuts_of_it(draw):
    source = torch.from_numpy(draw(3)).permute(2, 0, 1) / 255
    views = _views(source, 4, torch.Generator().manual_seed(0))
    assert views.shape == (4, 3, 16, 16) and torch.equal(views[0], source)
    assert all((view - source).abs().mean() > 1e-4 for view in views[1:])
    assert views.min() >= -1e-6 and views.max() <= 1 + 1e-6


def test_a_seed_gives_its_edit_again(clip, draw):
    training = Training(steps=5, views=2, width=8, levels=2)
    edited, again, other = (text2live(clip, draw(5), CAPTIONS, seed, training) for seed in (3, 3, 4))
    np.testing.assert_array_equal(edited, again)
    assert not np.array_equal(edited, other)


@pytest.mark.parametrize("seed", range(3))
def test_an_edit_comes_nearer_to_its_text(clip, clip_folder, draw, seed):
    picture, scorer = draw(5), ClipScorer(clip_folder)
    untrained, edited = (
        text2live(clip, picture, CAPTIONS, seed, Training(steps=steps, views=2, width=8, levels=2)) for steps in (0, 60)
    )
    before, first, last = scorer.score(CAPTIONS, [picture] * 3, [picture, untrained, edited])
    assert last.direction > first.direction + 0.05 and last.text_image_1 > first.text_image_1
    assert last.text_image_1 > before.text_image_1
    assert last.direction > 0.4  # A change of no relation to the texts has 0.
