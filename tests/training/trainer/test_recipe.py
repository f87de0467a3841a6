"""Settings: the paper's by default, from a file, from options; nothing unknown and nothing out of range."""

import sys
from dataclasses import asdict

import pytest

from ip2p_fast.errors import BadInput, MissingExtra
from ip2p_fast.training.trainer.networks import accelerator_for
from ip2p_fast.training.trainer.recipe import CONFIGS, Recipe, differing, recipe_from
from ip2p_fast.training.trainer.training import learning_rate


def test_the_shipped_configuration_of_the_paper_is_its_recipe_for_eight_processes():
    recipe = recipe_from(CONFIGS / "paper.toml", {})
    assert 8 * recipe.batch * recipe.accumulation == 1024
    plain = asdict(Recipe())
    assert {name for name, value in asdict(recipe).items() if value != plain[name]} == {"precision", "workers"}


def test_a_shipped_configuration_goes_by_its_name(tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    assert recipe_from(Path("lora-24gb"), {}).lora == 32


def test_an_option_goes_before_the_file(tmp_path):
    (tmp_path / "own.toml").write_text("steps = 7\nlearning_rate = 1\n")
    recipe = recipe_from(tmp_path / "own.toml", {"steps": 9})
    assert (recipe.steps, recipe.learning_rate) == (9, 1.0)


@pytest.mark.parametrize(
    "text, message",
    [
        ("stepz = 3", "there is no setting 'stepz'; there are .*steps"),
        ("steps = 1.5", "steps is 1.5, but it is of type int"),
        ("flip = true", "flip is True, but it is of type float"),
        ("steps = ", "is no TOML"),
        ("dropout = 0.5", "dropout is 0.5: it must be from 0 to 0.333333"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(BadInput, match=message):
        recipe_from(tmp_path / "own.toml", {})


def test_a_file_that_is_not_there_is_refused_with_the_shipped_ones(tmp_path):
    with pytest.raises(BadInput, match="shipped ones are lora-24gb, paper"):
        recipe_from(tmp_path / "none.toml", {})


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"zoom": 0.5}, "zoom is 0.5: it must be from 1 to 8"),
        ({"batch": 0}, "batch is 0"),
        ({"schedule": "linear"}, "schedule is 'linear': it must be one of 'constant', 'cosine'"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"cache": "x", "buckets": True}, "exclude each other"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        Recipe(**settings)


def test_what_another_run_would_be_is_named_and_what_would_not_is_not():
    ours = Recipe()
    assert differing(ours, asdict(Recipe(workers=9, keep=5, steps=3, batch=8, accumulation=16))) is None
    assert differing(ours, asdict(Recipe(learning_rate=1e-3, seed=2))) == "learning_rate"
    cosine = Recipe(schedule="cosine")
    assert differing(cosine, asdict(Recipe(schedule="cosine", steps=3))) == "steps"
    assert differing(ours, asdict(Recipe(cache="here"))) == "cache"


def test_the_learning_rate_warms_up_and_is_constant_or_half_a_cosine():
    constant = Recipe(warmup=4, steps=10)
    assert [learning_rate(constant, n) / 1e-4 for n in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]
    cosine = Recipe(schedule="cosine", steps=10)
    assert learning_rate(cosine, 5) == pytest.approx(0.5e-4) and learning_rate(cosine, 9) < 0.03e-4


@pytest.mark.parametrize(
    "settings, module, extra",
    [({"adam8bit": True}, "bitsandbytes", "adam8bit"), ({"tracker": "tensorboard"}, "tensorboard", "tensorboard")],
)
def test_an_absent_package_is_named_by_its_extra_before_work_starts(settings, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    with pytest.raises(MissingExtra, match=rf"ip2p-fast\[{extra}\]"):
        accelerator_for(Recipe(**settings), None)


def test_an_unknown_tracker_and_fp16_without_a_gpu_are_refused(monkeypatch):
    with pytest.raises(BadInput, match="no tracker 'paper'; accelerate knows .*tensorboard"):
        accelerator_for(Recipe(tracker="paper"), None)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    with pytest.raises(BadInput, match="precision fp16 needs a GPU"):
        accelerator_for(Recipe(precision="fp16"), None)
