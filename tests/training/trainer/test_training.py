"""From a text-to-image model to one that edits: the finished folder, checkpoints, and what stops a training."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from trainer_cases import free_port, quick

from ip2p_fast import Editor
from ip2p_fast.cli import main
from ip2p_fast.errors import BadInput
from ip2p_fast.model_files import read_tensors
from ip2p_fast.training.trainer import checkpoints, training
from ip2p_fast.training.trainer.average import Average
from ip2p_fast.training.trainer.parts import load_parts
from ip2p_fast.training.trainer.throughput import training_flops
from ip2p_fast.training.trainer.training import Job, train


@pytest.fixture(autouse=True)
def fresh_accelerate():
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def trained(base_model, shards, tmp_path_factory):
    """Six steps with everything on: checkpoints, validation, a sheet, a tracker's folder left out."""
    out = tmp_path_factory.mktemp("trained") / "model"
    recipe = quick(steps=6, sample_every=6, samples=2, validate_every=3)
    return out, train(Job(base_model, (shards,), out, recipe))


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "training" / "log.jsonl").read_text().splitlines()]


def unet_of(out):
    return read_tensors(Path(out) / "unet" / "diffusion_pytorch_model.safetensors")


def test_our_editor_and_diffusers_load_the_model_and_edit_alike(trained, pictures):
    out, _ = trained
    editor = Editor.from_pretrained(out, device="cpu", dtype="float32")
    ours = editor.edit(pictures[0], "make it night", steps=2, sampler="euler", seed=1, size=16)
    assert ours.images[0].size == (16, 16)
    pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(out)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe("make it night", pictures[0], num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    assert theirs.images[0].size == (16, 16)
    state = unet_of(out)
    torch.testing.assert_close(pipe.unet.state_dict()["conv_in.weight"], state["conv_in.weight"])
    assert state["conv_in.weight"].shape[1] == 8 and state["conv_in.weight"][:, 4:].any()


def test_the_card_says_data_configuration_and_figures(trained, shards):
    out, figures = trained
    card = (out / "README.md").read_text()
    assert f"- `{shards}`" in card and "| learning_rate | 0.001 |" in card
    assert f"| validation loss | {figures['validation_loss']:.4g} |" in card
    assert figures["samples"] == 24 and figures["samples_per_second"] > 0 and figures["share_of_flops"] > 0


def test_log_sheet_and_the_last_checkpoints_are_kept(trained):
    run = trained[0] / "training"
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "validation_loss" in line] == [3, 6]
    assert [path.name for path in checkpoints.checkpoints_in(run / "checkpoints")] == ["step-00000004", "step-00000006"]
    assert [path.name for path in (run / "samples").iterdir()] == ["step-00000006.png"]


def test_the_model_is_the_average_of_the_weights(trained, base_model):
    out, _ = trained
    state = torch.load(checkpoints.checkpoints_in(out / "training" / "checkpoints")[-1] / "state.pt")
    name = "mid_block.resnets.0.conv1.weight"
    torch.testing.assert_close(unet_of(out)[name], state["average"][name])
    assert not torch.equal(state["average"][name], state["weights"][name])


def test_the_average_warms_up():
    weight = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    average = Average([weight], 0.9)
    with torch.no_grad():
        weight.fill_(1.0)
    average.update(0)  # decay (1 + 0) / (10 + 0)
    with average.in_place():
        assert float(weight) == pytest.approx(0.9)
    assert float(weight) == 1.0
    average.update(1000)  # decay 0.9
    with average.in_place():
        assert float(weight) == pytest.approx(0.9 * 0.9 + 0.1)


def test_a_run_killed_while_it_trains_goes_on_with_the_same_losses(trained, base_model, shards, tmp_path, capsys):
    arguments = ["train", base_model, "--data", shards, "-o", str(tmp_path / "killed"), "--steps", "6", "--batch", "4"]
    arguments += ["--accumulation", "1", "--resolution", "16", "--lanes", "4", "--buffer", "16", "--held-out", "0.1"]
    arguments += ["--learning-rate", "1e-3", "--save-every", "2", "--sample-every", "0", "--validate-every", "3"]
    checkpoint = tmp_path / "killed" / "training" / "checkpoints" / "step-00000002" / "checkpoint.json"
    # slowed, so that the kill comes in the middle
    code = "import time; from ip2p_fast.training.trainer import training as t; step = t._Trainer._step\n"
    code += "def slow(*a): time.sleep(0.3); return step(*a)\n"
    code += "t._Trainer._step = slow; from ip2p_fast.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "killed" / "model_index.json").exists()
    assert main([*arguments, "--resume", "auto", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 24
    # with several threads sums differ in their last bits from run to run, and AdamW makes of that in a small gradient
    # a change of up to its step of 1e-3
    assert losses(tmp_path / "killed") == pytest.approx(losses(trained[0]), rel=1e-4)
    ours, theirs = unet_of(tmp_path / "killed"), unet_of(trained[0])
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=2e-3)


def test_two_processes_have_the_losses_of_one_at_the_same_samples_a_step(trained, base_model, shards, tmp_path):
    arguments = ["train", base_model, "--data", shards, "-o", str(tmp_path / "two"), "--steps", "6", "--batch", "2"]
    arguments += ["--accumulation", "1", "--resolution", "16", "--lanes", "4", "--buffer", "16", "--held-out", "0.1"]
    arguments += ["--learning-rate", "1e-3", "--save-every", "3", "--sample-every", "0", "--validate-every", "3"]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "ip2p_fast.cli", *arguments],
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in (0, 1)
    ]
    assert [process.wait(240) for process in processes] == [0, 0]
    # sums in another order differ in the last bits of float32
    assert losses(tmp_path / "two") == pytest.approx(losses(trained[0]), rel=1e-4)


def test_accumulation_changes_the_order_of_sums_alone(trained, base_model, shards, tmp_path):
    recipe = quick(steps=2, batch=2, accumulation=2)
    train(Job(base_model, (shards,), tmp_path / "model", recipe))
    assert losses(tmp_path / "model") == pytest.approx(losses(trained[0])[:2], rel=1e-5)


def test_recomputed_activations_change_no_loss(trained, base_model, shards, tmp_path):
    recipe = quick(steps=2, checkpointing=True)
    train(Job(base_model, (shards,), tmp_path / "model", recipe))
    assert losses(tmp_path / "model") == pytest.approx(losses(trained[0])[:2], rel=1e-5)


@pytest.mark.slow
def test_a_compiled_unet_has_the_losses_of_an_eager_one(trained, base_model, shards, tmp_path):
    train(Job(base_model, (shards,), tmp_path / "model", quick(steps=2, compile=True)))
    assert losses(tmp_path / "model") == pytest.approx(losses(trained[0])[:2], rel=1e-4)


def test_bf16_trains_near_the_losses_of_float32(trained, base_model, shards, tmp_path):
    train(Job(base_model, (shards,), tmp_path / "model", quick(steps=2, precision="bf16")))
    assert losses(tmp_path / "model") == pytest.approx(losses(trained[0])[:2], rel=0.03)


def test_a_new_run_does_not_overwrite_an_old_one(trained, base_model, shards):
    out, _ = trained
    with pytest.raises(BadInput, match="holds checkpoints up to step-00000006: --resume auto"):
        train(Job(base_model, (shards,), out, quick()))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"learning_rate": 2e-3}, "learning_rate is 0.001 there and 0.002 here"),
        ({"batch": 8}, "samples a step is 4 there and 8 here"),
        ({"dropout": 0.1, "seed": 3}, "dropout is 0.05 there and 0.1 here"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused_by_the_first_difference(
    trained, base_model, shards, changes, message
):
    out, _ = trained
    with pytest.raises(BadInput, match=message):
        train(Job(base_model, (shards,), out, quick(steps=6, **changes), resume="auto"))


def test_a_checkpoint_of_another_model_is_refused(trained, tiny_model, shards):
    out, _ = trained
    with pytest.raises(BadInput, match="of another model: its UNet has other weights"):
        train(Job(str(tiny_model), (shards,), out, quick(steps=6), resume="auto"))


def test_a_loss_that_is_no_number_stops_and_leaves_the_last_checkpoint(base_model, shards, tmp_path, monkeypatch):
    real, calls = training.diffusion_loss, []

    def failing(*arguments):
        calls.append(1)
        return real(*arguments) * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(training, "diffusion_loss", failing)
    recipe = quick(steps=6, save_every=2, validation=0)
    with pytest.raises(BadInput, match="the loss is nan at step 4: the last checkpoint is .*step-00000002"):
        train(Job(base_model, (shards,), tmp_path, recipe))
    state = torch.load(tmp_path / "training" / "checkpoints" / "step-00000002" / "state.pt")
    assert all(torch.isfinite(tensor).all() for tensor in state["weights"].values())


def test_weights_that_are_no_numbers_are_not_saved(base_model, shards, tmp_path, monkeypatch):
    real = training._Trainer._step

    def breaking(trainer, stream, step, rate):
        loss = real(trainer, stream, step, rate)
        if step == 3:
            with torch.no_grad():
                trainer.networks.trained[0].fill_(float("inf"))
        return loss

    monkeypatch.setattr(training._Trainer, "_step", breaking)
    with pytest.raises(BadInput, match="weights are no longer numbers at step 4: the last checkpoint is .*00000002"):
        train(Job(base_model, (shards,), tmp_path, quick(validation=0)))


def test_a_disk_that_is_full_at_the_end_leaves_the_checkpoint(base_model, shards, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "publish", full)
    recipe = quick(steps=2, validation=0)
    with pytest.raises(BadInput, match="cannot write the model to .*No space left.*the last checkpoint is .*00000002"):
        train(Job(base_model, (shards,), tmp_path, recipe))
    monkeypatch.undo()
    train(Job(base_model, (shards,), tmp_path, recipe, resume="auto"))
    assert (tmp_path / "model_index.json").exists()


def test_an_edit_model_is_trained_on(tiny_model, shards, tmp_path):
    train(Job(str(tiny_model), (shards,), tmp_path / "model", quick(steps=1, learning_rate=1e-12)))
    ours, theirs = unet_of(tmp_path / "model"), load_parts(str(tiny_model)).unet.state_dict()
    torch.testing.assert_close(ours["conv_in.weight"], theirs["conv_in.weight"])


@pytest.mark.parametrize("grown", [True, False])
def test_adapters_load_in_diffusers_and_are_merged_in_the_model(base_model, tiny_model, shards, tmp_path, grown):
    source = base_model if grown else str(tiny_model)
    recipe = quick(steps=3, lora=2, learning_rate=1e-2)
    train(Job(source, (shards,), tmp_path / "model", recipe))
    plain = load_parts(source)
    pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(tmp_path / "model")
    merged = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
    pipe.unet.load_state_dict(plain.unet.state_dict())
    pipe.load_lora_weights(tmp_path / "model" / "lora")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    adapted = pipe.unet.state_dict()
    for name, tensor in merged.items():
        torch.testing.assert_close(adapted[name], tensor, rtol=1e-4, atol=1e-6)
    changed = [name for name, tensor in plain.unet.state_dict().items() if not torch.equal(tensor, merged[name])]
    assert changed and all(".to_" in name or name == "conv_in.weight" for name in changed)
    assert ("conv_in.weight" in changed) == grown
    # they go on from their checkpoint too
    train(Job(source, (shards,), tmp_path / "model", replace(recipe, steps=4), resume="auto"))
    assert len(losses(tmp_path / "model")) == 4


def test_cached_latents_train(base_model, shards, tmp_path):
    recipe = quick(cache=str(tmp_path / "cache"), steps=2)
    train(Job(base_model, (shards,), tmp_path / "model", recipe))
    assert len(losses(tmp_path / "model")) == 2


def test_buckets_and_min_snr_and_a_clipped_gradient_train(base_model, shards, tmp_path):
    recipe = quick(buckets=True, min_snr=5.0, clip=1.0, warmup=2, schedule="cosine", steps=2, buffer=64)
    train(Job(base_model, (shards,), tmp_path / "model", recipe))
    assert all(map(torch.isfinite, torch.tensor(losses(tmp_path / "model"))))


def test_training_flops_are_those_of_a_real_forward_and_backward_pass(base_model):
    from diffusers.models.attention_processor import AttnProcessor
    from torch.utils.flop_counter import FlopCounterMode

    unet = load_parts(base_model).unet
    unet.set_attn_processor(AttnProcessor())
    with FlopCounterMode(display=False) as counter:
        predicted = unet(torch.randn(1, 8, 8, 8), torch.zeros(()), torch.randn(1, 77, 32)).sample
        predicted.sum().backward()
    # the text and the embedded timestep need no gradient of their own
    assert training_flops(dict(unet.config), 8, 8) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_the_command_refuses_what_is_wrong_in_one_line(base_model, shards, tmp_path, capsys):
    out = str(tmp_path / "model")
    assert main(["train", base_model, "--data", str(tmp_path / "none"), "-o", out]) == 2
    assert "is not there; looked for" in capsys.readouterr().err
    assert main(["train", "model", base_model, "--data", shards, "-o", out, "--dropout", "0.4"]) == 2
    assert capsys.readouterr().err == "error: dropout is 0.4: it must be from 0 to 0.333333\n"
    assert not Path(out).exists()
