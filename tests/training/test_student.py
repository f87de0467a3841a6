"""The pocket student's two distillations on cached latents, and the batches they draw."""

import copy

import pytest
import torch
from tiny_size import TINY

from ip2p_fast.training.distill.guidance import draw_scales
from ip2p_fast.training.distill.student import grow_student
from ip2p_fast.training.pocket.loop import step_generator
from ip2p_fast.training.pocket.student import consistency_loss_on, draw_batch, guidance_loss_on, lesson_of
from ip2p_fast.training.pocket.unet import Latents, build_unet, noise_levels


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(3)
    return build_unet(TINY).requires_grad_(False).eval()


@pytest.fixture(scope="module", params=[2, 1])
def data(request):
    """Pairs that are read in both directions, and such that are read forwards alone."""
    random = torch.Generator().manual_seed(5)
    latents = torch.randn(6, 2, 4, 8, 8, generator=random).half()
    contexts = torch.randn(7, 77, TINY.text_width, generator=random).half()
    return Latents(latents, contexts, torch.randint(1, 7, (6, request.param, 3), generator=random), scale=0.5)


def test_a_batch_holds_pairs_in_a_direction_and_a_phrasing_of_it(data):
    batch = draw_batch(data, 32, step_generator(0, 0))
    for image, target, text, index in zip(batch.image, batch.target, batch.text, batch.indices, strict=True):
        before, after = data.latents[index].float()
        backwards = int(torch.equal(image, after))
        torch.testing.assert_close(image, (before, after)[backwards])
        torch.testing.assert_close(target, (after, before)[backwards] * data.scale)
        assert any(torch.equal(text, data.contexts[row].float()) for row in data.texts[index, backwards])
    torch.testing.assert_close(batch.null, data.contexts[:1].float())


def test_the_lesson_is_the_pocket_models_noise_and_scales(data):
    lesson = lesson_of(TINY, data)
    timesteps = torch.tensor([0, 500, 999])
    for ours, theirs in zip(lesson.process.levels(timesteps), noise_levels(timesteps), strict=True):
        torch.testing.assert_close(ours[:, 0, 0, 0], theirs)
    scales = draw_scales(lesson, 1000, step_generator(0, 1))
    own = torch.tensor([TINY.text_guidance, TINY.image_guidance])
    assert (scales >= 1).all() and (scales <= 2 * own - 1).all()


@pytest.mark.parametrize("loss_on", [guidance_loss_on, consistency_loss_on])
def test_a_loss_depends_on_its_generator_alone(teacher, data, loss_on):
    student = grow_student(teacher).requires_grad_(False)
    own = teacher if loss_on is guidance_loss_on else copy.deepcopy(student)
    torch.nn.init.ones_(student.conv_out.weight)
    loss = loss_on(data, TINY, student, own, 2)
    one, again, other = (loss(step_generator(0, step)).item() for step in (1, 1, 2))
    assert one == again != other
