"""The model that is shipped: in the field's layout, small, and the same in diffusers as in our engine."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ip2p_fast
from ip2p_fast import Editor

POCKET = Path(ip2p_fast.__file__).with_name("pocket")
SAMPLES = json.loads((POCKET / "samples" / "samples.json").read_text())


def test_it_is_within_40_megabytes():
    assert sum(file.stat().st_size for file in POCKET.rglob("*") if file.is_file()) <= 40e6


def test_six_sample_scenes_come_with_an_instruction_each():
    assert len(SAMPLES) == 6
    for sample in SAMPLES:
        assert Image.open(POCKET / "samples" / sample["file"]).size == (64, 64)
        assert sample["instruction"]


@pytest.mark.parametrize("sample", SAMPLES[:2], ids=lambda sample: sample["file"])
def test_diffusers_pipeline_makes_the_same_picture(sample):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(POCKET, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    picture = Image.open(POCKET / "samples" / sample["file"])
    steps, scales = 10, {"guidance_scale": 3.0, "image_guidance_scale": 1.5}
    generator = torch.Generator().manual_seed(2)
    noise = torch.cat([torch.randn(1, 4, 16, 16, generator=generator) for _ in range(1 + steps)]).numpy()
    theirs = pipe(
        sample["instruction"],
        image=picture,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(2),
        **scales,
    ).images[0]
    editor = Editor.from_pretrained("pocket", device="cpu", dtype="float32")
    ours = editor.edit(
        picture, sample["instruction"], steps=steps, noise=noise, text_guidance=3.0, image_guidance=1.5
    ).images[0]
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int))
    assert (difference <= 1).mean() >= 0.999


def test_an_edit_changes_the_picture_and_repeats():
    editor = Editor.from_pretrained("pocket")
    picture = POCKET / "samples" / SAMPLES[0]["file"]
    first, again = (editor.edit(picture, SAMPLES[0]["instruction"], seed=7).images[0] for _ in range(2))
    assert np.array_equal(np.asarray(first), np.asarray(again))
    assert np.abs(np.asarray(first).astype(int) - np.asarray(Image.open(picture).convert("RGB"))).mean() > 5
