"""The shared loop: the same steps whether interrupted or not."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ip2p_fast.errors import BadInput
from ip2p_fast.training.pocket.loop import Run, load_average, train
from ip2p_fast.training.pocket.sizes import Stage

STAGE = Stage(steps=12, batch=8, learning_rate=0.05, warmup=3, ema=0.9)


def line(losses: list[float], stop_after: int | None = None) -> tuple[nn.Module, object]:
    """A model and a loss that records itself; `stop_after` steps it is interrupted."""
    torch.manual_seed(0)
    # three layers: the one in the middle is hidden, and Muon's where the stage asks for it
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1))

    def loss(rng: torch.Generator) -> torch.Tensor:
        if len(losses) == stop_after:
            raise KeyboardInterrupt
        x = torch.randn(STAGE.batch, 3, generator=rng)
        value = (model(x).float() - x.sum(1, keepdim=True)).square().mean()
        losses.append(value.item())
        return value

    return model, loss


@pytest.mark.parametrize("muon", [False, True])
def test_a_resumed_run_takes_the_steps_of_one_that_was_never_interrupted(tmp_path, muon):
    whole, parts = [], []
    stage = replace(STAGE, muon=muon)
    average = train(*line(whole), stage, Run(tmp_path / "whole.pt"))

    # a checkpoint after every step, so that the interruption costs none
    run = Run(tmp_path / "parts.pt", save_every=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(*line(parts, stop_after=5), stage, run)
    resumed = train(*line(parts, stop_after=None), stage, replace(run, resume=True))

    assert parts == whole and len(whole) == STAGE.steps
    for name, value in average.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


def test_it_learns_and_the_average_is_what_comes_back(tmp_path):
    losses = []
    model, loss = line(losses)
    average = train(model, loss, replace(STAGE, steps=200), Run(tmp_path / "run.pt"))
    assert losses[-1] < 0.01 * losses[0]
    trained = {name: value.detach().clone() for name, value in model.named_parameters()}
    load_average(model, average)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), average[name])
        assert not torch.equal(value, trained[name])


def test_another_seed_is_another_run(tmp_path):
    one, other = [], []
    train(*line(one), STAGE, Run(tmp_path / "one.pt", seed=1))
    train(*line(other), STAGE, Run(tmp_path / "other.pt", seed=2))
    assert one != other


def test_a_limit_in_minutes_ends_the_run_before_its_steps(tmp_path):
    losses = []
    train(*line(losses), replace(STAGE, steps=10**6), Run(tmp_path / "run.pt", minutes=0.01))
    assert 0 < len(losses) < 10**6


def test_progress_is_reported_with_the_mean_loss(tmp_path):
    losses, reports = [], []
    run = Run(tmp_path / "run.pt", report=lambda *row: reports.append(row))
    train(*line(losses), STAGE, run)
    ((step, done, mean),) = reports
    assert step == STAGE.steps and 0 < done < 1
    assert mean == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model, _ = line([])
    with pytest.raises(BadInput, match="loss is nan"):
        train(model, lambda rng: model[0].weight.sum() * math.nan, STAGE, Run(tmp_path / "run.pt"))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run = Run(tmp_path / "run.pt", resume=True)
    train(*line([]), STAGE, run)
    with pytest.raises(BadInput, match="another model"):
        train(nn.Linear(4, 1), lambda rng: torch.zeros(()), STAGE, run)
