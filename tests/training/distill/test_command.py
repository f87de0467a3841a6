"""`ip2p-fast distill`: from a model of three rows and pairs to a folder that edits in one."""

import functools
import json

import numpy as np
import pytest
import torch

from ip2p_fast import Editor
from ip2p_fast.cli import main
from ip2p_fast.errors import BadInput
from ip2p_fast.training.distill import distillation
from ip2p_fast.training.distill.distillation import Job, distill
from ip2p_fast.training.trainer.recipe import Recipe

QUICK = ("--steps", "2", "--batch", "2", "--resolution", "16", "--warmup", "1", "--device", "cpu")
RECIPE = Recipe(steps=3, batch=2, accumulation=1, resolution=16, learning_rate=1e-3, ema=0.5)


@pytest.fixture(scope="module")
def student(tiny_model, shards, tmp_path_factory):
    """A folder that `distill` made in both stages, and what it printed of it."""
    out = tmp_path_factory.mktemp("distilled") / "student"
    job = Job(str(tiny_model), (str(shards),), out, "both", RECIPE)
    return out, distill(job)


def command(capsys, *arguments):
    status = main(["distill", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_student_edits_in_one_row_a_step(student, pictures):
    out, _ = student
    editor = Editor.from_pretrained(out, device="cpu", dtype="float32")
    assert editor.backend.info.distilled
    for settings, steps in (({}, 4), ({"steps": 1}, 1), ({"sampler": "euler_a", "steps": 3}, 3)):
        result = editor.edit(pictures[0], "make it night", seed=1, size=16, **settings)
        assert result.row_evaluations == steps
        assert np.isfinite(result.latents).all()


def test_its_folder_says_what_it_is_told_and_how_it_edits(student, tiny_model):
    out, figures = student
    config = json.loads((out / "unet" / "config.json").read_text())
    theirs = json.loads((tiny_model / "unet" / "config.json").read_text())
    assert config["conditioned_on"] == ["text_guidance", "image_guidance"]
    assert config["time_cond_proj_dim"] == theirs["block_out_channels"][0]
    assert config["few_steps"] == 8
    assert json.loads((out / "defaults.json").read_text()) == {"steps": 4, "sampler": "lcm"}
    assert set(figures) == {"guidance_steps", "guidance_loss", "consistency_steps", "consistency_loss"}
    assert figures["guidance_steps"] == RECIPE.steps and figures["consistency_loss"] > 0


def test_the_other_networks_are_the_models_own(student, tiny_model):
    from safetensors.torch import load_file

    out, _ = student
    for file in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        ours, theirs = load_file(out / file), load_file(tiny_model / file)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_student_of_one_stage_goes_on_to_the_next(tiny_model, shards, tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    status, printed, _ = command(
        capsys, tiny_model, "--data", shards, "-o", one, "--stage", "guidance", *QUICK, "--json"
    )
    assert status == 0
    figures = json.loads(printed)
    assert figures["out"] == str(one) and figures["guidance_steps"] == 2 and "consistency_loss" not in figures
    assert "few_steps" not in json.loads((one / "unet" / "config.json").read_text())
    status, printed, _ = command(
        capsys, one, "--data", shards, "-o", two, "--stage", "consistency", "--hop", 1, "--checkpointing", *QUICK
    )
    assert status == 0 and printed == f"{two}\n"
    assert json.loads((two / "unet" / "config.json").read_text())["few_steps"] == 8


def test_a_resumed_run_takes_the_steps_and_the_pairs_of_one_that_was_never_interrupted(
    tiny_model, shards, tmp_path, monkeypatch
):
    monkeypatch.setattr(distillation, "Run", functools.partial(distillation.Run, save_every=0.0))
    original = distillation.guidance_loss
    seen = []

    def run(name, stop_after=None, resume=False):
        def recorded(student, teacher, lesson, batch, rng):
            if len(seen) == stop_after:
                raise KeyboardInterrupt
            loss = original(student, teacher, lesson, batch, rng)
            seen.append((batch.indices.tolist(), loss.item()))
            return loss

        monkeypatch.setattr(distillation, "guidance_loss", recorded)
        distill(Job(str(tiny_model), (str(shards),), tmp_path / name, "guidance", RECIPE, resume=resume))

    run("whole")
    whole, seen[:] = list(seen), []
    with pytest.raises(KeyboardInterrupt):
        run("parts", stop_after=2)
    run("parts", resume=True)
    assert seen == whole and len(whole) == RECIPE.steps


def test_a_loss_that_is_no_number_stops_in_its_step(tiny_model, shards, tmp_path, monkeypatch):
    original = distillation.guidance_loss
    steps = []

    def broken(*arguments):
        steps.append(None)
        return original(*arguments) * (float("nan") if len(steps) == 2 else 1.0)

    monkeypatch.setattr(distillation, "guidance_loss", broken)
    with pytest.raises(BadInput, match="the loss is nan at step 2: lower the learning rate"):
        distill(Job(str(tiny_model), (str(shards),), tmp_path / "out", "guidance", RECIPE))
    assert len(steps) == 2 and not (tmp_path / "out" / "model_index.json").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--stage", "polish"), "there is no stage 'polish': choose one of guidance, consistency, both"),
        (("--stage", "consistency"), "needs three rows: --stage both"),
        (("--steps", 0), "steps is 0: it must be from 1"),
        (("--batch", 0), "batch is 0: it must be from 1"),
        (("--learning-rate", "nan"), "learning_rate is nan"),
        (("--resolution", 18), "resolution is 18: this model needs multiples of 4"),
        (("--hop", -1), "--hop is -1: it must be 0 or more"),
        (("--text-guidance", "1:5"), "--text-guidance is 1:5: a range from 0 up is needed, with the model's own 7.5"),
        (("--image-guidance", "2:1"), "--image-guidance is 2:1"),
        (("--device", "abacus"), "there is no device 'abacus'"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_told_in_one_line(tiny_model, shards, tmp_path, capsys, given, said):
    status, printed, error = command(capsys, tiny_model, "--data", shards, "-o", tmp_path / "out", *QUICK, *given)
    assert status == 2 and printed == ""
    assert said in error and error.count("\n") == 1


def test_a_student_is_not_distilled_again(student, tiny_student, shards, tmp_path, capsys):
    rest = ("--data", shards, "-o", tmp_path / "out", *QUICK)
    assert "is a student already, it needs one row: --stage consistency" in command(capsys, tiny_student, *rest)[2]
    few = command(capsys, student[0], *rest, "--stage", "consistency")[2]
    assert "edits in 8 steps already: distil the model that it was made from" in few


def test_data_without_pairs_is_refused(tiny_model, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    status, _, error = command(capsys, tiny_model, "--data", empty, "-o", tmp_path / "out", *QUICK)
    assert status == 2 and "holds no pairs" in error


def test_an_output_that_is_taken_is_left_alone(student, tiny_model, shards, tmp_path, capsys):
    taken = command(capsys, tiny_model, "--data", shards, "-o", student[0], *QUICK)
    assert taken[0] == 2 and "holds a model: choose another output" in taken[2]
    earlier = tmp_path / "out" / "training" / "guidance.pt"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"")
    begun = command(capsys, tiny_model, "--data", shards, "-o", tmp_path / "out", *QUICK)
    assert begun[0] == 2 and "--resume goes on from it" in begun[2]
