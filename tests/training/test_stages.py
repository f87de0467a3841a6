"""Every stage of the training, at a size that takes seconds; what comes out is a model that others load."""

import json

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, StableDiffusionPipeline
from PIL import Image
from tiny_size import STEPS, TINY

from ip2p_fast import Editor
from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.options import guidance_of
from ip2p_fast.training.dataset.pairs.generator import Drawing, PairGenerator
from ip2p_fast.training.dataset.pairs.samples import Sample
from ip2p_fast.training.pocket.evaluate import evaluate
from ip2p_fast.training.pocket.publish import STUDENT_DEFAULTS, base_folder, student_folder
from ip2p_fast.training.pocket.split import KINDS
from ip2p_fast.training.pocket.stages import RENDERED, Work, load_clip, train_stage


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny-pocket")
    told = []
    work = Work(TINY, root / "runs", root / "model", watch=lambda *row: told.append(row))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ip2p_fast.training.pocket.data._SHARD", 8)
        patch.setattr("ip2p_fast.training.pocket.stages.HELD_OUT", 8)
        figures = {stage: train_stage(stage, work) for stage in RENDERED.stages}
    return work, figures, told


def test_every_stage_reports_progress_and_figures(trained):
    _, figures, told = trained
    assert {stage for stage, _, _ in told} == set(RENDERED.stages)
    assert all(0 <= done <= 1 for _, done, _ in told)
    assert figures["vae"]["vae_psnr_db"] > 0
    assert 0 <= figures["reader"]["reader.colour"] <= 1


def test_the_text_encoder_is_the_text_tower_of_the_clip(trained):
    work, _, _ = trained
    clip, _ = load_clip(work.model)
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(work.model)
    words = torch.tensor([[5, 9, 11] + [clip.config.text_config.eos_token_id] * 74])
    # CLIPModel wraps its text tower differently in different versions; its pooled output does not change
    with torch.no_grad():
        pooled = pipeline.text_encoder(words).pooler_output @ clip.text_projection.weight.T
        features = clip.get_text_features(words)
    torch.testing.assert_close(pooled, getattr(features, "pooler_output", features), rtol=1e-4, atol=1e-5)


def test_diffusers_edits_with_the_folder(trained):
    work, _, _ = trained
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(work.model)
    pipeline.set_progress_bar_config(disable=True)
    picture = Image.new("RGB", (TINY.pixels, TINY.pixels), "teal")
    edited = pipeline("make it night", image=picture, num_inference_steps=2).images[0]
    assert edited.size == picture.size


def test_the_text_to_image_model_draws_in_diffusers_and_in_ours(trained):
    work, _, _ = trained
    folder = base_folder(work.model)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("a cat", num_inference_steps=2).images[0]
    generator = PairGenerator.from_pretrained(folder, Drawing(steps=2), "cpu")
    ((_, pictures),) = generator.generate([(0, ("a cat", "a dog"), Sample(1, 0.5, 2.0))])
    assert drawn.size == (TINY.pixels,) * 2 and pictures[0].shape == (TINY.pixels, TINY.pixels, 3)
    assert guidance_of(str(folder)) == TINY.base_guidance


def test_weights_are_half_precision_in_safetensors(trained):
    from safetensors.torch import load_file

    work, _, _ = trained
    files = sorted(work.model.glob("*/*.safetensors"))
    assert [file.parent.name for file in files] == ["clip", "reader", "text_encoder", "unet", "vae"]
    for file in files:
        assert {tensor.dtype for tensor in load_file(file).values() if tensor.is_floating_point()} == {torch.float16}


def test_the_model_brings_its_own_settings(trained):
    work, _, _ = trained
    defaults = json.loads((work.model / "defaults.json").read_text())
    scales = {"text_guidance": TINY.text_guidance, "image_guidance": TINY.image_guidance}
    assert defaults == {**scales, "steps": 20, "size": TINY.pixels}


def test_evaluation_judges_one_edit_of_each_scene(trained):
    work, _, _ = trained
    report = evaluate(Editor.from_pretrained(work.model), 16, {"steps": 2})
    assert report.edits == 16 == sum(row["edits"] for row in report.by_kind.values())
    assert set(report.by_kind) <= set(KINDS)
    for name in ("target_success", "preservation", "both"):
        mean = sum(row[name] * row["edits"] for row in report.by_kind.values()) / 16
        assert getattr(report, name) == pytest.approx(mean)
    assert report.both <= min(report.target_success, report.preservation)


def test_a_stage_resumes_where_it_stood(trained):
    work, _, _ = trained
    checkpoint = torch.load(work.runs / "tiny-unet.pt", weights_only=True)
    assert checkpoint["step"] == STEPS
    told = []
    train_stage("unet", Work(TINY, work.runs, work.model, resume=True, watch=lambda *row: told.append(row)))
    assert told == []  # it had been done: no step was taken again


def test_a_stage_before_its_turn_names_what_it_needs(tmp_path):
    work = Work(TINY, tmp_path / "runs", tmp_path / "model")
    for stage, needed in (("vae", "data"), ("latents", "clip"), ("unet", "latents"), ("reader", "vae")):
        with pytest.raises(BadInput, match=f"train pocket {needed}"):
            train_stage(stage, work)
    with pytest.raises(BadInput, match="'polish'"):
        train_stage("polish", work)


def test_the_student_is_a_model_of_one_row_that_declares_its_scales(trained):
    work, figures, _ = trained
    folder = student_folder(work.model)
    config = json.loads((folder / "unet" / "config.json").read_text())
    assert config["conditioned_on"] == ["text_guidance", "image_guidance"]
    assert figures["student"]["student_parameters"] > figures["unet"]["unet_parameters"]
    editor = Editor.from_pretrained(folder, device="cpu")
    picture = Image.new("RGB", (TINY.pixels, TINY.pixels), "teal")
    result = editor.edit(picture, "make it night", seed=1)
    assert result.row_evaluations == STUDENT_DEFAULTS["steps"]
    # a diffusers pipeline reads the folder too; its own pipeline knows nothing of the scales
    StableDiffusionInstructPix2PixPipeline.from_pretrained(folder)


def test_a_student_is_brought_to_few_steps_once(trained):
    work, figures, _ = trained
    config = json.loads((student_folder(work.model) / "unet" / "config.json").read_text())
    assert config["few_steps"] == 8 and figures["few"]["few_parameters"] == figures["student"]["student_parameters"]
    with pytest.raises(BadInput, match="is brought to few steps already: `ip2p-fast train pocket student --resume`"):
        train_stage("few", work)


def test_few_steps_need_a_student(tmp_path):
    with pytest.raises(BadInput, match="train it with `ip2p-fast train pocket student`"):
        train_stage("few", Work(TINY, tmp_path / "runs", tmp_path / "model"))
