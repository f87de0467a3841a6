"""The whole edit against diffusers' StableDiffusionInstructPix2PixPipeline on the same weights, noise and settings."""

import numpy as np
import pytest
import tiny
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)

from ip2p_fast import Editor, EditRequest

SCHEDULERS = {
    "euler_a": EulerAncestralDiscreteScheduler,
    "euler": EulerDiscreteScheduler,
    "ddim": DDIMScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
}


def given_noise(steps, size, seed):
    """[1 + steps, 4, h, w] as a torch generator of that seed hands them to the pipeline, one draw after the other."""
    generator = torch.Generator().manual_seed(seed)
    width, height = size
    return torch.cat(
        [torch.randn(1, 4, height // 2, width // 2, generator=generator) for _ in range(1 + steps)]
    ).numpy()


def theirs(pipe, request, steps, sampler, seed):
    """Final latents [4, h, w] and the picture [H, W, 3] that diffusers makes of them."""
    pipe.scheduler = SCHEDULERS[sampler].from_config(pipe.scheduler.config, clip_sample=False)
    result = pipe(
        request.instruction,
        image=request.image,
        negative_prompt=request.negative or None,
        num_inference_steps=steps,
        guidance_scale=request.text_guidance,
        image_guidance_scale=request.image_guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    )
    with torch.no_grad():
        decoded = pipe.vae.decode(result.images / pipe.vae.config.scaling_factor).sample
    return result.images[0].numpy(), np.array(pipe.image_processor.postprocess(decoded)[0])


def same_picture(ours, theirs):
    return (np.abs(np.asarray(ours).astype(int) - theirs.astype(int)) <= 1).mean() >= 0.999


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("sampler", list(SCHEDULERS))
def test_a_batch_of_different_edits_equals_diffusers_one_by_one(tiny_pipeline, tiny_editor, pictures, sampler, steps):
    edits = [
        ("make it night", 7.5, 1.5, ""),
        ("add 3 trees", 4.0, 1.0, ""),
        ("a watercolour painting", 10.0, 2.0, "dog"),
        ("turn the red cat into a blue dog", 1.01, 1.2, "night, winter"),
    ]
    requests = [
        EditRequest(
            picture,
            instruction,
            text_guidance=s_t,
            image_guidance=s_i,
            negative=negative,
            steps=steps,
            sampler=sampler,
            size=max(picture.size),
            noise=given_noise(steps, picture.size, seed),
        )
        for seed, (picture, (instruction, s_t, s_i, negative)) in enumerate(zip(pictures, edits, strict=True))
    ]
    for seed, (request, result) in enumerate(zip(requests, tiny_editor.edit_many(requests), strict=True)):
        latents, picture = theirs(tiny_pipeline, request, steps, sampler, seed)
        assert np.linalg.norm(result.latents[0] - latents) <= 1e-4 * np.linalg.norm(latents)
        assert same_picture(result.images[0], picture)


def test_velocity_models_too(tmp_path, pictures):
    scheduler = tiny.SCHEDULER | {"prediction_type": "v_prediction"}
    pipe = tiny.pipeline(tmp_path, scheduler)
    noise = given_noise(20, pictures[1].size, 4)
    ours = Editor.from_pipeline(pipe, device="cpu", dtype="float32").edit(
        pictures[1], "make it night", noise=noise, size=24, steps=20
    )
    result = pipe(
        "make it night",
        image=pictures[1],
        num_inference_steps=20,
        guidance_scale=7.5,
        image_guidance_scale=1.5,
        generator=torch.Generator().manual_seed(4),
        output_type="latent",
    )
    latents = result.images[0].numpy()
    assert np.linalg.norm(ours.latents[0] - latents) <= 1e-4 * np.linalg.norm(latents)


@pytest.mark.parametrize(("text_guidance", "image_guidance"), [(7.5, 0.5), (0.5, 1.5), (0.0, 0.0), (1.0, 1.0)])
def test_the_formula_holds_where_diffusers_turns_guidance_off(
    tiny_pipeline, tiny_editor, pictures, text_guidance, image_guidance
):
    """One Euler step by hand: three predictions by diffusers' UNet, combined as the paper writes it."""
    noise = given_noise(1, pictures[0].size, 9)
    ours = tiny_editor.edit(
        pictures[0],
        "make it night",
        text_guidance=text_guidance,
        image_guidance=image_guidance,
        steps=1,
        sampler="euler",
        size=16,
        noise=noise,
    )
    tokens = tiny_pipeline.tokenizer(
        ["", "make it night"], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        null, text = tiny_pipeline.text_encoder(tokens.input_ids)[0].split(1)
        pixels = torch.from_numpy(np.asarray(pictures[0]).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        image = tiny_pipeline.vae.encode(pixels).latent_dist.mode()
        scheduler = EulerDiscreteScheduler.from_config(tiny.SCHEDULER)
        scheduler.set_timesteps(1)
        x = torch.from_numpy(noise[:1]) * scheduler.init_noise_sigma

        def e(picture, context):
            scaled = scheduler.scale_model_input(x, scheduler.timesteps[0])
            return tiny_pipeline.unet(torch.cat([scaled, picture], 1), scheduler.timesteps[0], context).sample

        none, only_image, both = e(image * 0, null), e(image, null), e(image, text)
        guided = none + image_guidance * (only_image - none) + text_guidance * (both - only_image)
        latents = scheduler.step(guided, scheduler.timesteps[0], x).prev_sample[0].numpy()
    assert np.linalg.norm(ours.latents[0] - latents) <= 1e-4 * np.linalg.norm(latents)
