"""Step distillation: where the teacher walks, and that the student learns to be there at once."""

import copy

import pytest
import tiny
import torch
from diffusers import DDIMScheduler

from ip2p_fast.samplers import sampler_table
from ip2p_fast.training.distill.consistency import Walk, consistency_loss, draw_few_step_timesteps, endpoint
from ip2p_fast.training.distill.process import CLEAN, Process, clean_latents, ddim_step, noised
from ip2p_fast.training.distill.student import grow_student, predict
from ip2p_fast.training.pocket.loop import step_generator


@pytest.fixture(scope="module")
def told(teacher):
    """A teacher that is told the scales, and hears them."""
    unet = grow_student(teacher).requires_grad_(False)
    torch.nn.init.normal_(unet.time_embedding.cond_proj.weight, std=0.2, generator=torch.Generator().manual_seed(4))
    return unet.eval()


@pytest.fixture
def task(draw_batch):
    """Noisy latents, image, timesteps, text, scales."""
    random = torch.Generator().manual_seed(7)
    batch = draw_batch(random, 3)
    noisy = torch.randn(3, 4, 8, 8, generator=random)
    return noisy, batch.image, torch.tensor([999, 399, 139]), batch.text, torch.tensor([[3.0, 1.5]] * 3)


def test_a_step_of_the_walk_is_diffusers_ddim(lesson):
    config = tiny.SCHEDULER | {"prediction_type": lesson.process.schedule.prediction, "clip_sample": False}
    theirs = DDIMScheduler(**config)
    theirs.set_timesteps(10)
    random = torch.Generator().manual_seed(0)
    noisy, prediction = torch.randn(2, 1, 4, 8, 8, generator=random)
    expected = theirs.step(prediction, 501, noisy)
    at = torch.tensor([501])
    clean = clean_latents(lesson.process, noisy, prediction, at)
    torch.testing.assert_close(clean, expected.pred_original_sample, rtol=1e-4, atol=1e-5)
    found = ddim_step(lesson.process, noisy, clean, at, at - 100)
    torch.testing.assert_close(found, expected.prev_sample, rtol=1e-4, atol=1e-5)


def test_clean_latents_are_those_that_the_samplers_table_predicts(lesson):
    table = sampler_table("lcm", 4, lesson.process.schedule)
    noisy, prediction = torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = clean_latents(lesson.process, noisy, prediction, torch.from_numpy(table.timesteps).long())
    p, q = (torch.from_numpy(column)[:, None, None, None] for column in table.coefficients.T[5:])
    torch.testing.assert_close(found, p * noisy + q * prediction, rtol=1e-4, atol=1e-4)


def test_at_the_clean_timestep_nothing_is_noise(lesson):
    clean, noise = torch.randn(2, 2, 4, 8, 8)
    torch.testing.assert_close(noised(lesson.process, clean, noise, torch.tensor([CLEAN] * 2)), clean)


def test_timesteps_are_those_of_edits_of_few_steps(lesson):
    drawn = draw_few_step_timesteps(lesson.process, 4, 2000, torch.Generator().manual_seed(0))
    asked = {}
    for steps in (1, 2, 3, 4):
        for timestep in sampler_table("lcm", steps, lesson.process.schedule).timesteps:
            asked[int(timestep)] = asked.get(int(timestep), 0.0) + 1 / (4 * steps)
    values, counts = drawn.unique(return_counts=True)
    assert values.tolist() == sorted(asked)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        assert count / 2000 == pytest.approx(asked[value], abs=0.04)


def test_the_teacher_walks_down_and_ends_with_its_prediction(told, lesson, task):
    """Each example written out by itself, though they have walks of different lengths."""
    noisy, image, timesteps, text, scales = task
    process = lesson.process
    with torch.no_grad():
        found = endpoint(told, told, process, Walk(), noisy, image, timesteps, text, scales)
    walks = [range(999, 138, -120), (399, 279, 159), (139,)]
    for i, walk in enumerate(walks):
        one = slice(i, i + 1)
        latents = noisy[one]
        for timestep in walk:
            at = torch.tensor([timestep])
            with torch.no_grad():
                predicted = predict(told, latents, image[one], at, text[one], scales[one])
            clean = clean_latents(process, latents, predicted, at)
            latents = ddim_step(process, latents, clean, at, at - 120)
        torch.testing.assert_close(found[one], clean, rtol=1e-3, atol=1e-3)


def test_after_a_hop_the_students_prediction_is_the_end(told, lesson, task):
    noisy, image, timesteps, text, scales = task
    process = lesson.process
    student = copy.deepcopy(told)
    with torch.no_grad():
        student.conv_out.weight *= 0.5
        whole = endpoint(student, told, process, Walk(), noisy, image, timesteps, text, scales)
        found = endpoint(student, told, process, Walk(hop=1), noisy, image, timesteps, text, scales)
        at = timesteps[:2]
        clean = clean_latents(process, noisy[:2], predict(told, noisy[:2], image[:2], at, text[:2], scales[:2]), at)
        latents = ddim_step(process, noisy[:2], clean, at, at - 120)
        predicted = predict(student, latents, image[:2], at - 120, text[:2], scales[:2])
        expected = clean_latents(process, latents, predicted, at - 120)
    torch.testing.assert_close(found[:2], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[2], whole[2])  # there already: the teacher's prediction alone
    assert not torch.allclose(found[:2], whole[:2], rtol=1e-2, atol=1e-2)


def test_training_brings_one_step_nearer_to_the_teachers_end(told, draw_batch):
    student, lesson, walk = copy.deepcopy(told).requires_grad_(True), _lesson(), Walk(most=2)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)

    def loss():
        rng = step_generator(0, 0)
        return consistency_loss(student, told, lesson, walk, draw_batch(rng), rng)

    before = loss().item()
    for _ in range(12):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.7 * before
    assert all(p.grad is None for p in told.parameters())


def test_at_the_last_timestep_the_start_is_noise_alone(told, draw_batch):
    """As in an edit: there the loss does not depend on the noised picture, only on what the edit changes."""
    lesson = _lesson()
    batch = draw_batch(torch.Generator().manual_seed(0), 2)
    seen = []

    def spy(module, arguments):
        seen.append(arguments[0][:, :4].clone())

    handle = told.register_forward_pre_hook(spy)
    try:
        with torch.no_grad():
            consistency_loss(told, told, lesson, Walk(most=1), batch, torch.Generator().manual_seed(3))
    finally:
        handle.remove()
    noise = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(seen[0], noise)


def _lesson():
    from ip2p_fast.training.distill.guidance import Lesson, usual_ranges

    process = Process.from_config(tiny.SCHEDULER | {"prediction_type": "v_prediction"})
    return Lesson(process, (3.0, 1.5), usual_ranges((3.0, 1.5)), latent_scale=0.5)
