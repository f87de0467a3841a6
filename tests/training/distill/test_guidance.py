"""Guidance distillation: what the student is asked for, and where it starts."""

import pytest
import tiny
import torch

from ip2p_fast.guidance import dual_guidance
from ip2p_fast.training.distill.guidance import Lesson, draw_scales, guidance_loss, guided, usual_ranges
from ip2p_fast.training.distill.process import Process
from ip2p_fast.training.distill.student import grow_student, predict
from ip2p_fast.training.pocket.loop import step_generator


def rows_of(teacher, noisy, image, timestep, text, null, scales):
    """Row by row, as the runtime plans them."""
    total = torch.zeros_like(noisy)
    for row in dual_guidance(*scales):
        inputs = torch.cat([noisy, image if row.image else torch.zeros_like(image)], 1)
        total += row.weight * teacher(inputs, timestep, text if row.text else null).sample
    return total


def test_the_target_is_the_runtimes_weighted_sum(teacher, draw_batch):
    batch = draw_batch(torch.Generator().manual_seed(0), 3)
    null = batch.null.expand_as(batch.text)
    timesteps, scales = torch.tensor([900, 400, 10]), torch.tensor([[2.0, 1.5], [1.0, 1.0], [3.0, 1.0]])
    found = guided(teacher, batch.target, batch.image, timesteps, batch.text, null, scales)
    for i in range(3):
        one = slice(i, i + 1)
        with torch.no_grad():
            expected = rows_of(
                teacher,
                batch.target[one],
                batch.image[one],
                timesteps[one],
                batch.text[one],
                batch.null,
                scales[i].tolist(),
            )
        torch.testing.assert_close(found[one], expected, rtol=1e-4, atol=1e-4)


def test_the_student_starts_as_the_teachers_first_row_whatever_the_scales(teacher, draw_batch):
    student = grow_student(teacher).eval()
    batch, timesteps = draw_batch(torch.Generator().manual_seed(0), 2), torch.tensor([500, 20])
    scales = torch.tensor([[7.5, 1.5], [2.0, 1.0]])
    with torch.no_grad():
        ours = predict(student, batch.target, batch.image, timesteps, batch.text, scales)
        theirs = teacher(torch.cat([batch.target, batch.image], 1), timesteps, batch.text).sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert student.conv_in.weight.data_ptr() != teacher.conv_in.weight.data_ptr()


def test_scales_fill_their_ranges_and_often_are_the_models_own(lesson):
    scales = draw_scales(lesson, 4000, torch.Generator().manual_seed(1))
    low, high = torch.tensor(lesson.ranges).T
    share = (scales == torch.tensor(lesson.own)).all(1).float().mean()
    assert 0.2 < share < 0.3
    assert (scales >= low).all() and (scales <= high).all()
    assert (scales.amax(0) > high - 0.05 * (high - low)).all() and (scales.amin(0) < low + 0.05 * (high - low)).all()


@pytest.mark.parametrize(
    ("own", "ranges"), [((7.5, 1.5), ((1.0, 14.0), (1.0, 2.0))), ((1.0, 0.25), ((1.0, 1.0), (0.0, 1.0)))]
)
def test_usual_ranges_are_centred_on_the_models_own_scales(own, ranges):
    assert usual_ranges(own) == ranges


def test_training_brings_the_student_nearer_to_the_guided_teacher(teacher, draw_batch):
    process = Process.from_config(tiny.SCHEDULER | {"prediction_type": "v_prediction"})
    student, lesson = grow_student(teacher), Lesson(process, (3.0, 1.5), ((1.0, 5.0), (1.0, 2.0)), latent_scale=0.5)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)

    def loss():
        rng = step_generator(0, 0)
        return guidance_loss(student, teacher, lesson, draw_batch(rng), rng)

    before = loss().item()
    for _ in range(12):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.7 * before
    assert all(p.grad is None for p in teacher.parameters())
