"""Guidance distillation: what the student is asked for, where it starts, and the folder it ends as."""

import numpy as np
import pytest
import torch
from tiny_size import TINY

from ip2p_fast.guidance import dual_guidance
from ip2p_fast.layers import embed_scales
from ip2p_fast.training.pocket.loop import step_generator
from ip2p_fast.training.pocket.student import GUIDANCE_DIM, distillation_loss, draw_scales, grow_student, guided
from ip2p_fast.training.pocket.unet import Latents, build_unet


@pytest.fixture(scope="module")
def teacher():
    """Random weights that hear both conditions well: else three rows would differ by nearly nothing."""
    torch.manual_seed(3)
    unet = build_unet(TINY).eval()
    with torch.no_grad():
        unet.conv_in.weight[:, 4:] *= 4
        for name, weight in unet.named_parameters():
            if "attn2.to_v" in name:
                weight *= 8
    return unet


@pytest.fixture(scope="module")
def data():
    random = torch.Generator().manual_seed(5)
    latents = torch.randn(6, 2, 4, 8, 8, generator=random).half()
    contexts = torch.randn(7, 77, TINY.text_width, generator=random).half()
    return Latents(latents, contexts, torch.randint(1, 7, (6, 2, 3), generator=random), scale=0.5)


def rows_of(teacher, noisy, image, timestep, text, null, scales):
    """Row by row, as the runtime plans them."""
    total = torch.zeros_like(noisy)
    for row in dual_guidance(*scales):
        inputs = torch.cat([noisy, image if row.image else torch.zeros_like(image)], 1)
        total += row.weight * teacher(inputs, timestep, text if row.text else null).sample
    return total


def test_the_target_is_the_runtimes_weighted_sum(teacher):
    random = torch.Generator().manual_seed(0)
    noisy, image = (torch.randn(3, 4, 8, 8, generator=random) for _ in range(2))
    text = torch.randn(3, 77, TINY.text_width, generator=random)
    null = torch.randn(1, 77, TINY.text_width, generator=random).expand_as(text)
    timesteps, scales = torch.tensor([900, 400, 10]), torch.tensor([[2.0, 1.5], [1.0, 1.0], [3.0, 1.0]])
    found = guided(teacher, noisy, image, timesteps, text, null, scales)
    for i in range(3):
        one = slice(i, i + 1)
        with torch.no_grad():
            expected = rows_of(
                teacher, noisy[one], image[one], timesteps[one], text[one], null[one], scales[i].tolist()
            )
        torch.testing.assert_close(found[one], expected, rtol=1e-4, atol=1e-4)


def test_the_student_starts_as_the_teachers_first_row_whatever_the_scales(teacher):
    student = grow_student(teacher).eval()
    inputs, text = torch.randn(2, 8, 8, 8), torch.randn(2, 77, TINY.text_width)
    condition = embed_scales(torch.tensor([[7.5, 1.5], [2.0, 1.0]]), GUIDANCE_DIM)
    with torch.no_grad():
        ours = student(inputs, torch.tensor([500, 20]), text, timestep_cond=condition).sample
        theirs = teacher(inputs, torch.tensor([500, 20]), text).sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert student.conv_in.weight.data_ptr() != teacher.conv_in.weight.data_ptr()


def test_scales_reach_beyond_the_models_own_and_often_are_them():
    scales = draw_scales(TINY, 4000, torch.Generator().manual_seed(1))
    own = torch.tensor([TINY.text_guidance, TINY.image_guidance])
    share = (scales == own).all(1).float().mean()
    assert 0.2 < share < 0.3
    assert (scales >= 1).all() and (scales <= 2 * own - 1).all()
    assert scales[:, 0].max() > 1.9 * (own[0] - 1) + 1


def test_training_brings_the_student_nearer_to_the_guided_teacher(teacher, data):
    student = grow_student(teacher)
    loss = distillation_loss(student, teacher, TINY, data, batch=16)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-4)

    def held_out():
        with torch.no_grad():
            return np.mean([loss(step_generator(99, step)).item() for step in range(8)])

    before = held_out()
    for step in range(100):
        optimizer.zero_grad()
        loss(step_generator(0, step)).backward()
        optimizer.step()
    assert held_out() < 0.8 * before
    assert teacher.conv_in.weight.grad is None


def test_a_batch_depends_on_its_generator_alone(teacher, data):
    loss = distillation_loss(grow_student(teacher), teacher, TINY, data, batch=4)
    one, again, other = (loss(step_generator(0, step)).item() for step in (1, 1, 2))
    assert one == again != other
