"""SDEdit on our loop: its ends, its peer, and that pictures do not depend on their company."""

import numpy as np
import pytest
import tiny
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from ip2p_fast.checkpoints import POCKET
from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.pairs.generator import Drawing, PairGenerator
from ip2p_fast.training.dataset.pairs.samples import Sample
from ip2p_fast.training.figures.sdedit import Redrawing, SDEdit, base_guidance
from ip2p_fast.training.pocket.stages import load_vae
from ip2p_fast.training.pocket.vae import psnr, reconstruct

STEPS, CFG = 6, 3.0
CAPTION = "a watercolour painting of mountains at sunset"


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return tiny.text_to_image(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases") / "base"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sdedit(folder):
    return SDEdit.from_pretrained(folder, CFG, STEPS, "cpu", "float32")


@pytest.fixture(scope="module")
def picture(draw):
    return draw(1, 16, 16)


def test_at_strength_1_it_is_text_to_image(sdedit, folder, picture):
    generator = PairGenerator.from_pretrained(folder, Drawing(steps=STEPS), "cpu", "float32")
    ((_, drawn),) = generator.draw([("", CAPTION, Sample(seed=5, p=0.0, cfg=CFG))])
    (redrawn,) = sdedit.redraw([Redrawing(picture, CAPTION, 1.0, 5)])
    np.testing.assert_array_equal(redrawn, drawn)


def test_near_strength_0_it_is_the_picture_through_the_autoencoder():
    model = SDEdit.from_pretrained("pocket-base", steps=1000, device="cpu", dtype="float32")
    picture = np.array(Image.open(POCKET / "samples" / "meadow_cat.png").convert("RGB"))
    jobs = [Redrawing(picture, "a meadow at night", strength, 5) for strength in (0.001, 0.01)]
    through = reconstruct(load_vae(POCKET), picture[None])[0]
    nearest, near = (float(psnr(through[None], redrawn[None])[0]) for redrawn in model.redraw(jobs))
    assert nearest > 35 and nearest > near + 1


@pytest.mark.parametrize("strength", [0.4, 0.9])
def test_it_draws_what_diffusers_image_to_image_draws(pipe, sdedit, folder, picture, strength):
    peer = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    peer.set_progress_bar_config(disable=True)
    run = max(1, int(STEPS * strength))
    drawn = torch.randn(1 + run, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
        latents = pipe.vae.encode(x).latent_dist.mode() * pipe.vae.config.scaling_factor
    expected = peer(
        CAPTION,
        latents,  # pictures of 4 channels are taken as latents: the mode, where the pipeline would draw a sample
        strength,
        STEPS,
        guidance_scale=CFG,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images[0]
    ours = _with_noise(sdedit, Redrawing(picture, CAPTION, strength, 0), drawn.numpy())
    assert np.abs(ours - expected * 255).max() <= 1.5


def _with_noise(sdedit, job, drawn):
    """As `redraw`, from given noise: the start and one for each step but the last, which adds none."""
    from ip2p_fast.training.figures import sdedit as module

    def given(table, shape, seed):
        noise = np.zeros((1 + table.steps, *shape), np.float32)
        noise[: len(drawn)] = drawn[: 1 + table.steps]
        return noise

    original, module._drawn = module._drawn, given
    try:
        return sdedit.redraw([job])[0].astype(float)
    finally:
        module._drawn = original


def test_a_picture_does_not_depend_on_its_company(folder, draw):
    jobs = [Redrawing(draw(i, 16, 16), CAPTION, 0.3 + 0.1 * i, i) for i in range(5)]
    jobs.append(Redrawing(draw(9, 16, 32), CAPTION, 0.5, 9))
    together = SDEdit.from_pretrained(folder, CFG, STEPS, "cpu", "float32").redraw(jobs)
    alone = [SDEdit.from_pretrained(folder, CFG, STEPS, "cpu", "float32").redraw([job])[0] for job in jobs]
    assert [picture.shape for picture in together] == [picture.shape for picture in alone]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, float("nan")])
def test_a_strength_out_of_range_is_refused(sdedit, picture, strength):
    with pytest.raises(BadInput, match="above 0 and at most 1"):
        sdedit.redraw([Redrawing(picture, CAPTION, strength, 0)])


def test_guidance_is_the_bases_own_else_stable_diffusions(folder):
    assert base_guidance("pocket-base") == 2.25
    assert base_guidance(str(folder)) == 7.5
