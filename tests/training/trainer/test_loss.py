"""The loss of a batch: what is predicted, from what, with which conditions and weights."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from trainer_cases import quick

from ip2p_fast.samplers import NoiseSchedule
from ip2p_fast.training.trainer.batches import Batch
from ip2p_fast.training.trainer.draws import Purpose, generator_of
from ip2p_fast.training.trainer.loss import diffusion_loss, min_snr_weight

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def schedule(prediction="epsilon"):
    return NoiseSchedule.from_config({**CONFIG, "prediction_type": prediction})


def batch(count=4, first=0):
    rng = torch.Generator().manual_seed(5)
    image, target = (torch.randn(count, 4, 4, 4, generator=rng) for _ in range(2))
    text, null = torch.randn(count, 77, 8, generator=rng), torch.full((1, 77, 8), 9.0)
    return Batch(image, target, text, null, torch.arange(first, first + count))


class Seen:
    """A UNet that predicts zeros and keeps what it was given."""

    def __call__(self, noisy, timesteps, text):
        self.noisy, self.timesteps, self.text = noisy, timesteps, text
        return SimpleNamespace(sample=torch.zeros_like(noisy[:, :4]))


def drawn(index, seed=0):
    rng = generator_of(seed, Purpose.DIFFUSION, index)
    return torch.randn(4, 4, 4, generator=rng), int(torch.randint(1000, (), generator=rng))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noisy_latents_and_what_is_predicted_are_those_of_diffusers(prediction):
    seen, given = Seen(), batch()
    loss = diffusion_loss(seen, schedule(prediction), given, quick(dropout=0.0))
    theirs = DDPMScheduler(**CONFIG, prediction_type=prediction)
    noise = torch.stack([drawn(i)[0] for i in range(4)])
    timesteps = torch.tensor([drawn(i)[1] for i in range(4)])
    assert seen.timesteps.tolist() == timesteps.tolist()
    torch.testing.assert_close(
        seen.noisy[:, :4], theirs.add_noise(given.target, noise, timesteps), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(seen.noisy[:, 4:], given.image)
    torch.testing.assert_close(seen.text, given.text)
    wanted = noise if prediction == "epsilon" else theirs.get_velocity(given.target, noise, timesteps)
    torch.testing.assert_close(loss, wanted.square().mean(), rtol=1e-4, atol=1e-5)


def test_a_sample_draws_the_same_in_any_company():
    alone, together = Seen(), Seen()
    given = batch()
    diffusion_loss(together, schedule(), given, quick())
    one = Batch(given.image[2:3], given.target[2:3], given.text[2:3], given.null, given.indices[2:3])
    diffusion_loss(alone, schedule(), one, quick())
    for ours, theirs in ((alone.noisy, together.noisy), (alone.text, together.text)):
        torch.testing.assert_close(ours, theirs[2:3], rtol=0, atol=0)


def test_dropped_images_are_zeros_and_dropped_texts_the_null_text():
    seen, count = Seen(), 400
    given = batch(count)
    diffusion_loss(seen, schedule(), given, quick(dropout=0.1))
    no_image = (seen.noisy[:, 4:].flatten(1) == 0).all(1)
    no_text = (seen.text == given.null).flatten(1).all(1)
    cases = [int(case.sum()) for case in (no_text & ~no_image, no_text & no_image, no_image & ~no_text)]
    # four standard deviations of 10% of 400 draws
    assert all(16 < case < 64 for case in cases)
    kept = ~no_image
    torch.testing.assert_close(seen.noisy[kept, 4:], given.image[kept])


def test_nothing_is_dropped_in_validation_and_its_noise_is_its_own():
    seen = Seen()
    given = batch(100)
    diffusion_loss(seen, schedule(), given, quick(dropout=0.3), Purpose.VALIDATION)
    torch.testing.assert_close(seen.text, given.text)
    assert seen.timesteps.tolist() != [drawn(i)[1] for i in range(100)]


@pytest.mark.parametrize("prediction, over", [("epsilon", 0.0), ("v_prediction", 1.0)])
def test_min_snr_bounds_the_signal_to_noise_ratio(prediction, over):
    timesteps = torch.tensor([0, 300, 999])
    signal = DDPMScheduler(**CONFIG).alphas_cumprod[timesteps].double()
    snr = signal / (1 - signal)
    wanted = torch.minimum(snr, torch.tensor(5.0)) / (snr + over)
    torch.testing.assert_close(min_snr_weight(schedule(prediction), timesteps, 5.0), wanted, rtol=1e-4, atol=1e-6)
    assert min_snr_weight(schedule(prediction), timesteps, 0.0).tolist() == [1.0] * 3


def test_weights_count_sample_by_sample():
    plain, weighted, given = Seen(), Seen(), batch(1, first=7)
    loss = diffusion_loss(plain, schedule(), given, quick(dropout=0.0))
    bounded = diffusion_loss(weighted, schedule(), given, quick(dropout=0.0, min_snr=1.0))
    weight = min_snr_weight(schedule(), plain.timesteps, 1.0)[0]
    torch.testing.assert_close(bounded, loss * weight.float())
