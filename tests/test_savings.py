"""Savings that need no training: what they leave out, and that what they reuse is what an earlier step had."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ip2p_fast import Editor, EditRequest
from ip2p_fast.guidance import dual_guidance
from ip2p_fast.loop import LoopEdit, StepLoop
from ip2p_fast.samplers import sampler_table
from ip2p_fast.savings import Reuse, schedule

SCALES = (7.5, 1.5)
SAVINGS = [
    dict(guidance_refresh=2),
    dict(guidance_refresh=3, guidance_interval=(0.3, 0.8)),
    dict(deep_refresh=2),
    dict(deep_refresh=3, guidance_interval=(0.3, 0.8)),
    dict(guidance_refresh=2, deep_refresh=3),
]


def counts(**savings):
    return [len(rows) for rows in schedule(8, *SCALES, **savings).rows]


def test_by_default_every_step_has_the_papers_rows_and_nothing_is_reused():
    plain = schedule(5, *SCALES)
    assert plain.rows == (dual_guidance(*SCALES),) * 5 and plain.reuse is None


def test_outside_the_interval_one_row_of_weight_one_is_left():
    plan = schedule(8, *SCALES, guidance_interval=(0.25, 0.75))
    assert plan.rows == (dual_guidance(1, 1),) * 2 + (dual_guidance(*SCALES),) * 4 + (dual_guidance(1, 1),) * 2
    assert plan.reuse is None


def test_between_refreshes_of_the_guidance_one_row_is_left():
    assert counts(guidance_refresh=2) == [3, 1, 3, 1, 3, 1, 3, 1]
    assert counts(guidance_refresh=3) == [3, 1, 1, 3, 1, 1, 3, 1]
    assert counts(guidance_refresh=9) == [3] + [1] * 7


def test_the_first_guided_step_is_a_refresh():
    plan = schedule(8, *SCALES, guidance_interval=(0.25, 0.75), guidance_refresh=3)
    assert [len(rows) for rows in plan.rows] == [1, 1, 3, 1, 1, 3, 1, 1]
    assert plan.reuse.recalls == (False, False, False, True, True, False, False, False)
    assert plan.reuse.keeps == (False, False, True, False, False, False, False, False)  # the last delta serves no step


def test_an_edit_of_one_row_has_no_delta_to_reuse():
    assert schedule(4, 1.0, 1.0, guidance_refresh=2).reuse is None
    assert schedule(4, *SCALES, distilled=True, guidance_refresh=2).reuse is None


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.floats(0, 1), st.floats(0, 1))
def test_nothing_reused_is_older_than_its_refresh_allows(steps, guidance_refresh, deep_refresh, one, other):
    plan = schedule(
        steps,
        *SCALES,
        guidance_interval=(min(one, other), max(one, other)),
        guidance_refresh=guidance_refresh,
        deep_refresh=deep_refresh,
    )
    reuse = plan.reuse or Reuse((False,) * steps, (False,) * steps, tuple((True,) * len(rows) for rows in plan.rows))
    kept, evaluated = -steps, {}
    for step, (rows, deep) in enumerate(zip(plan.rows, reuse.deep, strict=True)):
        kept = step if reuse.keeps[step] else kept
        assert not reuse.recalls[step] or step - kept < guidance_refresh
        for row, now in zip(rows, deep, strict=True):
            conditions = (row.text, row.image)
            evaluated |= {conditions: step} if now else {}
            assert step - evaluated[conditions] < deep_refresh


# ---- against a plain implementation ----


@torch.no_grad()
def plain_edit(
    pipe, editor, picture, noise, scales, sampler, guidance_interval=(0, 1), guidance_refresh=1, deep_refresh=1
):
    """Latents of an edit with diffusers' UNet, a row at a time; deep features are kept and put back by a hook."""
    unet, steps = pipe.unet, len(noise) - 1
    table = sampler_table(sampler, steps, editor.backend.info.schedule)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
    image = pipe.vae.encode(pixels).latent_dist.mode()
    texts = [
        pipe.text_encoder(torch.from_numpy(editor.tokenizer.encode(text).ids)[None])[0]
        for text in ("", "make it night")
    ]
    deep, evaluated = {}, {}

    def predict(x, row, step):
        conditions = (row.text, row.image)
        fresh = conditions not in evaluated or step - evaluated[conditions] >= deep_refresh
        if fresh:
            evaluated[conditions] = step

        def keep_or_put_back(module, inputs, output):
            if not fresh:
                return deep[conditions]
            deep[conditions] = output

        hook = unet.up_blocks[-2].register_forward_hook(keep_or_put_back)
        latents = torch.cat([x, image if row.image else torch.zeros_like(image)], 1)
        prediction = unet(latents, float(table.timesteps[step]), texts[int(row.text)]).sample
        hook.remove()
        return prediction

    x = torch.from_numpy(noise[:1]) * table.start_scale
    history, delta, guided_steps = [torch.zeros_like(x)] * 2, None, 0
    for step in range(steps):
        inside = guidance_interval[0] <= step / steps < guidance_interval[1]
        rows = dual_guidance(*scales) if inside else dual_guidance(1, 1)
        first = predict(x, rows[0], step)
        if inside and guided_steps % guidance_refresh:
            guided = first + delta
        else:
            guided = rows[0].weight * first + sum(row.weight * predict(x, row, step) for row in rows[1:])
            delta = guided - first
        guided_steps += inside
        a, b0, b1, b2, c, p, q = (float(number) for number in table.coefficients[step])
        clean = p * x + q * guided
        x = a * x + b0 * clean + b1 * history[0] + b2 * history[1] + c * torch.from_numpy(noise[step + 1])
        history = [clean, history[0]]
    return x.numpy()


@pytest.mark.parametrize("sampler", ["euler_a", "dpmpp_2m"])
@pytest.mark.parametrize("scales", [(3.0, 1.5), (3.0, 1.0), (0.0, 1.5)], ids=str)
@pytest.mark.parametrize("savings", SAVINGS, ids=str)
def test_an_edit_equals_a_plain_implementation(tiny_pipeline, tiny_editor, pictures, savings, scales, sampler):
    noise = np.random.default_rng(0).standard_normal((8, 4, 8, 8), np.float32)
    expected = plain_edit(tiny_pipeline, tiny_editor, pictures[0], noise, scales, sampler, **savings)
    settings = dict(steps=7, size=16, noise=noise, sampler=sampler, text_guidance=scales[0], image_guidance=scales[1])
    found = tiny_editor.edit(pictures[0], "make it night", **settings, **savings).latents
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)
    exact = tiny_editor.edit(pictures[0], "make it night", **settings).latents
    assert np.linalg.norm(found - exact) > 1e-3 * np.linalg.norm(exact)  # the saving does something


# ---- in the loop ----


@pytest.fixture
def make_edit(tiny_editor, pictures):
    def make(picture=0, steps=6, seed=0, sampler="euler_a", **savings):
        tokens = np.stack([tiny_editor.tokenizer.encode(text).ids for text in ("", "make it night")])
        plan = schedule(steps, *SCALES, **savings)
        table = sampler_table(sampler, steps, tiny_editor.backend.info.schedule)
        return LoopEdit(np.array(pictures[picture]), tokens, table, plan.rows, seed, reuse=plan.reuse)

    return make


@pytest.fixture
def loop(tiny_editor):
    loop = StepLoop(tiny_editor.backend)
    yield loop
    loop.clear()


def run(loop, edit):
    (key,) = loop.add([edit])
    while len(loop):
        loop.step()
    latents = loop.backend.latents(key)
    loop.finish(key)
    return latents


def test_keeping_alone_changes_no_bit(loop, make_edit):
    edit = make_edit()
    keeping = Reuse(keeps=(True,) * 6, recalls=(False,) * 6, deep=((True,) * 3,) * 6)
    np.testing.assert_array_equal(run(loop, replace(edit, reuse=keeping)), run(loop, edit))


def test_refreshing_at_every_step_is_the_same_edit_to_the_bit(tiny_editor, pictures):
    settings = dict(steps=4, seed=1, size=16)
    ones = tiny_editor.edit(
        pictures[0], "dog", guidance_interval=(0.0, 1.0), guidance_refresh=1, deep_refresh=1, **settings
    )
    np.testing.assert_array_equal(ones.latents, tiny_editor.edit(pictures[0], "dog", **settings).latents)
    assert (ones.row_evaluations, ones.shallow_evaluations) == (12, 0)


def test_edits_in_any_phase_share_a_step_and_each_is_as_alone(loop, make_edit):
    edits = [
        make_edit(seed=1, guidance_refresh=2),
        make_edit(seed=2, guidance_refresh=3, deep_refresh=2, picture=3),
        make_edit(seed=3, sampler="dpmpp_2m"),
        make_edit(seed=4, deep_refresh=3, steps=5),
        make_edit(seed=5, guidance_refresh=2, deep_refresh=2, guidance_interval=(0.2, 0.9)),
    ]
    alone = [run(loop, edit) for edit in edits]
    keys = []
    for edit in edits:  # one joins at every step, so that no two are in the same phase
        keys += loop.add([edit])
        loop.step()
    while len(loop):
        loop.step()
    for key, expected in zip(keys, alone, strict=True):
        np.testing.assert_array_equal(loop.backend.latents(key), expected)


@pytest.mark.parametrize("savings", SAVINGS, ids=str)
@pytest.mark.parametrize("max_rows", [1, 2])
def test_max_rows_bounds_every_run(tiny_editor, pictures, monkeypatch, savings, max_rows):
    requests = [EditRequest(pictures[0], "dog", steps=5, seed=i, size=16, **savings) for i in range(2)]
    whole = tiny_editor.edit_many(requests)
    sizes, evaluate = [], tiny_editor.backend.unet.with_deep

    def watched(latents, *rest):
        sizes.append(len(latents))
        return evaluate(latents, *rest)

    monkeypatch.setattr(tiny_editor.backend.unet, "with_deep", watched)
    split = Editor(tiny_editor.backend, tiny_editor.tokenizer, max_rows=max_rows).edit_many(requests)
    assert max(sizes) == max_rows
    for ours, expected in zip(split, whole, strict=True):
        assert np.linalg.norm(ours.latents - expected.latents) <= 1e-5 * np.linalg.norm(expected.latents)


@pytest.mark.parametrize("savings", SAVINGS, ids=str)
def test_evaluations_are_counted_as_they_run(tiny_editor, pictures, monkeypatch, savings):
    counted, evaluate = {True: 0, False: 0}, tiny_editor.backend.unet.with_deep

    def watched(latents, timesteps, text, shared=None, scales=None, deep=None):
        counted[deep is None] += len(latents)
        return evaluate(latents, timesteps, text, shared, scales, deep)

    monkeypatch.setattr(tiny_editor.backend.unet, "with_deep", watched)
    result = tiny_editor.edit(pictures[0], "dog", steps=7, seed=1, size=16, num_images=2, **savings)
    assert (result.row_evaluations, result.shallow_evaluations) == (counted[True], counted[False])
    assert counted[True] < 2 * 3 * 7


def test_deep_features_live_as_long_as_their_edit(loop, make_edit):
    key, _ = loop.add([make_edit(deep_refresh=2), make_edit(guidance_refresh=2)])
    loop.step()
    assert loop.backend._edits[key].kept.deep.keys() == {(True, True), (False, True), (False, False)}
    loop.clear()
    assert not loop.backend._edits


@pytest.mark.parametrize("savings", SAVINGS, ids=str)
def test_previews_end_as_the_picture_and_masks_keep_their_pixels(tiny_editor, pictures, savings):
    seen = []
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (8, 0, 16, 16))
    settings = dict(steps=5, seed=1, size=16, **savings)
    free = tiny_editor.edit(pictures[0], "dog", on_step=lambda progress: seen.append(progress.preview()), **settings)
    np.testing.assert_array_equal(seen[-1], np.asarray(free.images[0]))  # Euler's last step lands on the prediction
    masked = np.asarray(tiny_editor.edit(pictures[0], "dog", mask=mask, **settings).images[0])
    np.testing.assert_array_equal(masked[:, :8], np.asarray(pictures[0].convert("RGB"))[:, :8])
    assert not np.array_equal(masked[:, 8:], np.asarray(pictures[0].convert("RGB"))[:, 8:])


def test_a_distilled_model_reuses_deep_features(tiny_student, pictures):
    editor = Editor.from_pretrained(tiny_student, device="cpu", dtype="float32")
    settings = dict(steps=4, seed=1, size=16)
    plain = editor.edit(pictures[0], "dog", **settings)
    np.testing.assert_array_equal(
        editor.edit(pictures[0], "dog", guidance_refresh=2, **settings).latents, plain.latents
    )
    saved = editor.edit(pictures[0], "dog", deep_refresh=2, **settings)
    assert (saved.row_evaluations, saved.shallow_evaluations) == (2, 2)
    assert not np.allclose(saved.latents, plain.latents, atol=1e-4)
