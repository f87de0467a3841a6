"""Each sampler's table makes the same trajectory as diffusers' scheduler of that name."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)

from ip2p_fast.errors import BadInput, ModelError
from ip2p_fast.samplers import SAMPLERS, NoiseSchedule, sampler_table

SCHEDULERS = {
    "euler_a": EulerAncestralDiscreteScheduler,
    "euler": EulerDiscreteScheduler,
    "ddim": DDIMScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "lcm": LCMScheduler,
}
STABLE_DIFFUSION = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}


def model_outputs(steps):
    return np.random.default_rng(5).standard_normal((steps, 16))


def ours(config, sampler, steps, noise):
    table = sampler_table(sampler, steps, NoiseSchedule.from_config(config))
    x, d1, d2 = table.start_scale * noise[0], 0.0, 0.0
    for e, n, (a, b0, b1, b2, c, p, q) in zip(model_outputs(steps), noise[1:], table.coefficients, strict=True):
        d = p * x + q * e
        x, d1, d2 = a * x + b0 * d + b1 * d1 + b2 * d2 + c * n, d, d1
    return table, x


def diffusers(config, sampler, steps, noise, monkeypatch):
    scheduler = SCHEDULERS[sampler].from_config(config)
    scheduler.set_timesteps(steps)
    draws = iter(torch.from_numpy(noise))
    x = next(draws) * scheduler.init_noise_sigma
    module = __import__(type(scheduler).__module__, fromlist=["randn_tensor"])
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(draws))
    for t, e in zip(scheduler.timesteps, torch.from_numpy(model_outputs(steps)), strict=True):
        scheduler.scale_model_input(x, t)
        x = scheduler.step(e, t, x).prev_sample
    return scheduler, x.numpy()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", [None, "linspace", "leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 50])
@pytest.mark.parametrize("sampler", list(SCHEDULERS))
def test_a_table_follows_the_scheduler_of_its_name(sampler, steps, spacing, prediction, monkeypatch):
    config = STABLE_DIFFUSION | {"prediction_type": prediction}
    if spacing is not None:
        config["timestep_spacing"] = spacing
    noise = np.random.default_rng(7).standard_normal((1 + steps, 16))
    table, x = ours(config, sampler, steps, noise)
    scheduler, expected = diffusers(config, sampler, steps, noise, monkeypatch)
    np.testing.assert_allclose(table.timesteps, scheduler.timesteps.numpy(), rtol=1e-6)
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("first", [1, 4, 9])
@pytest.mark.parametrize("sampler", list(SCHEDULERS))
def test_the_last_steps_of_a_table_follow_a_scheduler_that_begins_there(sampler, first, monkeypatch):
    steps, noise = 10, np.random.default_rng(7).standard_normal((11, 16))
    table = sampler_table(sampler, steps, NoiseSchedule.from_config(STABLE_DIFFUSION)).from_step(first)
    scheduler = SCHEDULERS[sampler].from_config(STABLE_DIFFUSION)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):  # DDIM keeps no index
        scheduler.set_begin_index(first)
    draws = iter(torch.from_numpy(noise[1:]))
    module = __import__(type(scheduler).__module__, fromlist=["randn_tensor"])
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(draws))
    timesteps = scheduler.timesteps[first:]
    assert table.steps == len(timesteps) and table.start_scale == table.levels[0, 1]

    clean = np.random.default_rng(8).standard_normal(16)
    alpha, sigma = table.levels[0].astype(np.float64)
    x, d1, d2 = alpha * clean + sigma * noise[0], 0.0, 0.0
    expected = scheduler.add_noise(torch.from_numpy(clean), torch.from_numpy(noise[0]), timesteps[:1])
    for e, n, (a, b0, b1, b2, c, p, q) in zip(model_outputs(table.steps), noise[1:], table.coefficients, strict=False):
        d = p * x + q * e
        x, d1, d2 = a * x + b0 * d + b1 * d1 + b2 * d2 + c * n, d, d1
    for t, e in zip(timesteps, torch.from_numpy(model_outputs(table.steps)), strict=True):
        scheduler.scale_model_input(expected, t)
        expected = scheduler.step(e, t, expected).prev_sample
    np.testing.assert_allclose(x, expected.numpy(), rtol=1e-4, atol=1e-4 * np.abs(expected.numpy()).max())


def test_all_steps_of_a_table_are_the_table():
    table = sampler_table("euler_a", 5, NoiseSchedule.from_config(STABLE_DIFFUSION))
    assert table.from_step(0) is table


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_latents_keep_unit_variance_form(sampler):
    table = sampler_table(sampler, 20, NoiseSchedule.from_config(STABLE_DIFFUSION))
    np.testing.assert_allclose((table.levels.astype(np.float64) ** 2).sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_perfect_model_is_recovered_whatever_the_sampler(sampler):
    """With the true noise as the prediction, deterministic samplers end on the clean latents."""
    table = sampler_table(sampler, 20, NoiseSchedule.from_config(STABLE_DIFFUSION))
    clean, x, d1, d2 = 0.7, None, 0.0, 0.0
    for (alpha, sigma), (a, b0, b1, b2, _, p, q) in zip(table.levels[:-1], table.coefficients, strict=True):
        x = alpha * clean + sigma * 1.3 if x is None else x
        e = (x - alpha * clean) / sigma
        d = p * x + q * e
        x, d1, d2 = a * x + b0 * d + b1 * d1 + b2 * d2, d, d1
    alpha, sigma = table.levels[-1]
    assert abs(x - alpha * clean) <= sigma * 1.4 + 1e-3


def test_unknown_sampler_is_named():
    with pytest.raises(BadInput, match="unknown sampler 'heun'.*euler_a"):
        sampler_table("heun", 20, NoiseSchedule.from_config(STABLE_DIFFUSION))


@pytest.mark.parametrize("steps", [0, -3, 1001, 2.5, True, None])
def test_steps_outside_the_schedule_are_refused(steps):
    with pytest.raises(BadInput, match="from 1 to 1000"):
        sampler_table("euler_a", steps, NoiseSchedule.from_config(STABLE_DIFFUSION))


def test_lcm_takes_no_more_steps_than_its_grid():
    with pytest.raises(BadInput, match="from 1 to 50"):
        sampler_table("lcm", 51, NoiseSchedule.from_config(STABLE_DIFFUSION))


@pytest.mark.parametrize(
    "change",
    [
        {"beta_schedule": "sigmoid"},
        {"prediction_type": "sample"},
        {"timestep_spacing": "random"},
        {"rescale_betas_zero_snr": True},
    ],
)
def test_schedules_that_are_not_supported_are_refused_by_value(change):
    with pytest.raises(ModelError, match=next(iter(change))):
        NoiseSchedule.from_config(STABLE_DIFFUSION | change)
