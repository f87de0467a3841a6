"""The UNet's training is the paper's: what it sees, what it predicts, what is dropped."""

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from tiny_size import TINY

from ip2p_fast.training.pocket.dropout import draw_dropout
from ip2p_fast.training.pocket.loop import step_generator
from ip2p_fast.training.pocket.unet import (
    SCHEDULER,
    Latents,
    build_unet,
    changed_weight,
    diffusion_loss,
    draw_timesteps,
)

PAIRS, TEXTS, BATCH = 5, 7, 64


class Spy(torch.nn.Module):
    """Stands in for the UNet: keeps what it is given and predicts nothing."""

    device = torch.device("cpu")

    def forward(self, sample, timesteps, context):
        self.sample, self.timesteps, self.context = sample, timesteps, context
        return type("Output", (), {"sample": torch.zeros_like(sample[:, :4])})


@pytest.fixture
def data():
    rng = torch.Generator().manual_seed(0)
    return Latents(
        latents=torch.randn(PAIRS, 2, 4, 4, 4, generator=rng).half(),
        contexts=torch.randn(TEXTS, 77, 32, generator=rng).half(),
        texts=torch.randint(1, TEXTS, (PAIRS, 2, 3), generator=rng),
        scale=0.25,
    )


@pytest.fixture
def seen(data):
    spy = Spy()
    spy.loss = diffusion_loss(spy, data, BATCH)(step_generator(0, 0))
    return spy


def test_the_image_condition_is_the_mode_without_the_scaling_factor_or_zeros(seen, data):
    modes = data.latents.reshape(-1, 4, 4, 4).float()
    for image in seen.sample[:, 4:]:
        assert not image.any() or any(torch.equal(image, mode) for mode in modes)
    assert 0 < sum(not image.any() for image in seen.sample[:, 4:]) < BATCH // 2


def test_a_dropped_text_is_the_empty_one(seen, data):
    empty = [torch.equal(context, data.contexts[0].float()) for context in seen.context]
    assert 0 < sum(empty) < BATCH // 2


def test_timesteps_cover_the_schedule_with_a_density_that_grows_with_the_noise(seen):
    drawn = draw_timesteps(100_000, 1000, torch.Generator().manual_seed(0))
    assert drawn.min() < 10
    assert drawn.max() == 999
    # density 2t: the upper half holds three quarters
    assert (drawn >= 500).float().mean() == pytest.approx(0.75, abs=0.001)
    assert seen.timesteps.tolist() == sorted(seen.timesteps.tolist())


def test_a_perfect_prediction_of_v_has_no_loss(data):
    """An oracle that finds the clean latents behind the noisy ones, and so knows v."""
    cumulative = EulerAncestralDiscreteScheduler(**SCHEDULER).alphas_cumprod
    # every pair is the same picture twice, so that the condition gives the target away
    same = data.latents[:1, :1].expand(PAIRS, 2, -1, -1, -1)
    clean = same[0, 0].float() * data.scale

    class Oracle(Spy):
        def forward(self, sample, timesteps, context):
            a = cumulative[timesteps].sqrt()[:, None, None, None]
            s = (1 - cumulative[timesteps]).sqrt()[:, None, None, None]
            noise = (sample[:, :4] - a * clean) / s
            return type("Output", (), {"sample": a * noise - s * clean})

    loss = diffusion_loss(Oracle(), Latents(same, data.contexts, data.texts, data.scale), BATCH)
    assert loss(step_generator(0, 3)) < 1e-6


def test_what_the_edit_changes_counts_more_and_the_mean_weight_is_one():
    before = torch.zeros(1, 4, 4, 4)
    after = before.clone()
    after[:, :, 0, :2] = 8.0
    weight = changed_weight(before, after, scale=0.25)
    assert weight.mean() == pytest.approx(1.0)
    assert weight[0, 0, 0] == pytest.approx(4 * weight[0, 3, 3].item())
    assert torch.equal(changed_weight(before, before, 0.25), torch.ones(1, 4, 4))


def test_the_same_step_has_the_same_loss(data):
    torch.manual_seed(0)
    unet = build_unet(TINY)
    loss = diffusion_loss(unet, data, 4)
    first, again, other = (loss(step_generator(0, step)).item() for step in (1, 1, 2))
    assert first == again != other


def test_dropout_is_drawn_after_the_noise_and_only_once(seen, data):
    """Which samples are dropped can be told from the generator alone: one draw for text and image."""
    rng = step_generator(0, 0)
    for draw in (
        lambda: torch.randint(PAIRS, (BATCH,), generator=rng),
        lambda: torch.randint(2, (BATCH,), generator=rng),
    ):
        draw()
    torch.randint(3, (BATCH,), generator=rng)
    torch.randn(BATCH, 4, 4, 4, generator=rng)
    torch.rand(BATCH, generator=rng)
    no_text, no_image = draw_dropout(BATCH, rng)
    np.testing.assert_array_equal([not image.any() for image in seen.sample[:, 4:]], no_image)
    np.testing.assert_array_equal([torch.equal(c, data.contexts[0].float()) for c in seen.context], no_text)
