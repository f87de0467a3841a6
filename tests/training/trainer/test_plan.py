"""What a training costs: counted and measured, and carried over to other devices."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from trainer_cases import quick

from ip2p_fast.cli import main
from ip2p_fast.errors import BadInput
from ip2p_fast.training.trainer.parts import load_parts
from ip2p_fast.training.trainer.plan import Sizes, plan_of, sizes_of
from ip2p_fast.training.trainer.recipe import Recipe

SIZES = Sizes(flops=2e12, trained=10, frozen=100)


def test_time_is_the_samples_work_over_what_all_devices_sustain():
    plan = plan_of(Recipe(steps=100, batch=4, accumulation=2), SIZES, devices=8, rate=1e14, price=3.0)
    assert plan.samples == 100 * 4 * 2 * 8
    assert plan.seconds == pytest.approx(6400 * 2e12 / 8e14)
    assert plan.device_hours == pytest.approx(8 * plan.seconds / 3600)
    assert plan.cost == pytest.approx(3 * plan.device_hours)


def test_memory_is_weights_gradients_average_and_moments_which_may_be_divided_or_small():
    recipe = Recipe()
    assert plan_of(recipe, SIZES, 4, 1e12).weight_bytes == 10 * 20 + 400
    assert plan_of(recipe, SIZES, 4, 1e12, sharded=True).weight_bytes == 10 * 20 / 4 + 400
    assert plan_of(replace(recipe, adam8bit=True), SIZES, 4, 1e12).weight_bytes == 10 * 14 + 400


def test_weights_and_work_are_counted(base_model):
    unet = load_parts(base_model).unet
    whole, adapters = sizes_of(base_model, quick()), sizes_of(base_model, quick(lora=2))
    assert whole.trained == sum(p.numel() for p in unet.parameters())
    assert adapters.trained < whole.trained / 10 and adapters.frozen == whole.frozen + whole.trained
    assert sizes_of(base_model, quick(checkpointing=True)).flops > whole.flops


@pytest.mark.parametrize(
    "devices, rate, price", [(0, 1e12, None), (1, 0.0, None), (1, float("nan"), None), (1, 1.0, -1.0)]
)
def test_what_cannot_be_planned_is_refused(devices, rate, price):
    with pytest.raises(BadInput, match="at least 1|above 0|0 or more"):
        plan_of(Recipe(), SIZES, devices, rate, price)


def test_the_command_measures_and_carries_over_to_another_peak(base_model, tmp_path, capsys):
    (tmp_path / "own.toml").write_text("resolution = 16\nbatch = 2\nsteps = 10\naccumulation = 1\n")
    command = ["train", "plan", base_model, "--config", str(tmp_path / "own.toml"), "--gpus", "2", "--measure", "1"]
    assert main([*command, "--peak-tflops", "100", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    measured = plan["measured"]
    assert plan["samples"] == 40 and measured["peak_memory"] > 1e7 and measured["seconds_per_sample"] > 0
    rate = 1e14 * measured["utilization"]
    assert plan["seconds"] == pytest.approx(40 * plan["sizes"]["flops"] / (2 * rate))


def test_the_command_wants_one_source_of_the_share(capsys):
    assert main(["train", "plan"]) == 2
    assert "give one of --utilization and --measure" in capsys.readouterr().err
    assert main(["train", "plan", "--utilization", "0.3"]) == 2
    assert "--utilization needs --peak-tflops" in capsys.readouterr().err
    assert main(["train", "plan", "--utilization", "1.5", "--peak-tflops", "100"]) == 2
    assert "--utilization is 1.5: it must be above 0 and at most 1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_step_of_stable_diffusions_size_with_adapters_fits_in_12_gb_on_a_cpu(tmp_path, record_property):
    (tmp_path / "own.toml").write_text(
        "resolution = 256\nbatch = 1\naccumulation = 1\nsteps = 1\nlora = 32\ncheckpointing = true\n"
    )
    command = [sys.executable, "-m", "ip2p_fast.cli", "train", "plan", "sd15", "--config", str(tmp_path / "own.toml")]
    told = subprocess.run([*command, "--gpus", "1", "--measure", "1", "--json"], capture_output=True, check=True).stdout
    peak = json.loads(told)["measured"]["peak_memory"] / 1e9
    record_property("peak_memory_gb", peak)
    print(f"peak memory {peak:.2f} GB")
    assert peak < 12
