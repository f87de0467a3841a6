"""The public way in."""

import warnings

import numpy as np
import pytest
from PIL import Image

from ip2p_fast import BadInput, Cancelled, Editor, EditRequest


def pixels(image):
    return np.asarray(image).astype(int)


def test_results_say_what_was_done(tiny_editor, pictures):
    result = tiny_editor.edit(pictures[1], "make it night", steps=3, seed=4, size=24)
    assert [image.size for image in result.images] == [(24, 16)]
    assert result.seed == 4
    assert result.row_evaluations == 9
    assert set(result.timings) == {"prepare", "encode", "denoise", "decode"}


def test_the_models_defaults_hold_until_a_request_says_otherwise(tiny_editor, pictures):
    assert tiny_editor.edit(pictures[0], "make it night", size=16).row_evaluations == 3 * 20
    assert tiny_editor.edit(pictures[0], "make it night", size=16, image_guidance=1.0).row_evaluations == 2 * 20


def test_a_drawn_seed_is_reported_and_makes_the_same_picture(tiny_editor, pictures):
    first = tiny_editor.edit(pictures[0], "make it night", steps=2, size=16)
    again = tiny_editor.edit(pictures[0], "make it night", steps=2, size=16, seed=first.seed)
    assert np.array_equal(pixels(first.images[0]), pixels(again.images[0]))


def test_image_i_of_a_request_is_the_picture_of_seed_plus_i(tiny_editor, pictures):
    three = tiny_editor.edit(pictures[0], "make it night", steps=2, size=16, seed=5, num_images=3)
    last = tiny_editor.edit(pictures[0], "make it night", steps=2, size=16, seed=7)
    assert len(three.images) == 3
    assert np.abs(pixels(three.images[2]) - pixels(last.images[0])).max() <= 1


def test_any_mix_of_requests_runs_together_and_each_is_as_alone(tiny_editor, pictures):
    requests = [
        EditRequest(pictures[0], "make it night", steps=3, seed=1, size=16),
        EditRequest(pictures[1], "add 3 trees", text_guidance=1, image_guidance=1, steps=5, seed=2, size=24),
        EditRequest(pictures[3], "", seed=3, size=16),
        EditRequest(pictures[2], "dog", sampler="dpmpp_2m", steps=4, seed=4, size=32, negative="cat"),
    ]
    together = tiny_editor.edit_many(requests)
    for request, result in zip(requests, together, strict=True):
        alone = tiny_editor.edit_many([request])[0]
        assert np.abs(pixels(result.images[0]) - pixels(alone.images[0])).max() <= 1
        assert result.row_evaluations == alone.row_evaluations


def test_an_empty_instruction_returns_the_resized_input(tiny_editor, pictures):
    result = tiny_editor.edit(pictures[1], "  ", size=12, num_images=2)
    assert [image.size for image in result.images] == [(12, 8)] * 2
    assert result.row_evaluations == 0


def test_black_parts_of_a_mask_keep_the_inputs_own_pixels(tiny_editor, pictures):
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (8, 0, 16, 16))
    masked = tiny_editor.edit(pictures[0], "make it night", steps=4, seed=1, size=16, mask=mask).images[0]
    free = tiny_editor.edit(pictures[0], "make it night", steps=4, seed=1, size=16).images[0]
    before = pixels(pictures[0].convert("RGB"))
    assert np.array_equal(pixels(masked)[:, :8], before[:, :8])
    assert not np.array_equal(pixels(masked)[:, 8:], before[:, 8:])
    assert not np.array_equal(pixels(masked), pixels(free))


def test_a_white_mask_is_no_mask(tiny_editor, pictures):
    settings = dict(steps=4, seed=1, size=16)
    masked = tiny_editor.edit(pictures[0], "make it night", mask=Image.new("L", (16, 16), 255), **settings).images[0]
    free = tiny_editor.edit(pictures[0], "make it night", **settings).images[0]
    assert np.abs(pixels(masked) - pixels(free)).max() <= 1


def test_outside_the_guidance_interval_one_row_is_run(tiny_editor, pictures):
    half = tiny_editor.edit(pictures[0], "make it night", steps=10, size=16, seed=0, guidance_interval=(0.0, 0.5))
    assert half.row_evaluations == 5 * 3 + 5 * 1
    none = tiny_editor.edit(pictures[0], "make it night", steps=10, size=16, seed=0, guidance_interval=(0.0, 0.0))
    ones = tiny_editor.edit(
        pictures[0], "make it night", steps=10, size=16, seed=0, text_guidance=1.0, image_guidance=1.0
    )
    assert np.array_equal(pixels(none.images[0]), pixels(ones.images[0]))


def test_progress_counts_the_steps_of_all_edits(tiny_editor, pictures):
    seen = []
    requests = [EditRequest(pictures[0], "dog", steps=2, size=16), EditRequest(pictures[0], "cat", steps=3, size=16)]
    tiny_editor.edit_many(requests, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_cancelling_leaves_the_editor_as_it_was(tiny_editor, pictures):
    def cancel(progress):
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        tiny_editor.edit(pictures[0], "make it night", steps=50, size=16, on_step=cancel)
    assert not tiny_editor.backend._edits
    assert tiny_editor.edit(pictures[0], "make it night", steps=1, size=16).images


def test_any_other_error_of_a_callback_passes_through_and_frees_the_edits(tiny_editor, pictures):
    def fail(progress):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        tiny_editor.edit(pictures[0], "make it night", steps=5, size=16, on_step=fail)
    assert not tiny_editor.backend._edits


def test_a_text_over_77_tokens_warns_with_what_was_cut(tiny_editor, pictures):
    with pytest.warns(UserWarning, match="cut off: .*zebra"):
        tiny_editor.edit(pictures[0], "make it night " * 40 + "zebra", steps=1, size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tiny_editor.edit(pictures[0], "make it night", steps=1, size=16)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text_guidance", float("nan")),
        ("text_guidance", float("inf")),
        ("image_guidance", -float("inf")),
        ("image_guidance", 1e6),
        ("text_guidance", "high"),
        ("steps", 0),
        ("steps", 1001),
        ("sampler", "heun"),
        ("seed", -1),
        ("seed", 2**64),
        ("seed", 1.5),
        ("num_images", 0),
        ("size", 0),
        ("guidance_interval", (0.5, 0.2)),
        ("guidance_interval", 0.5),
        ("guidance_refresh", 0),
        ("guidance_refresh", 1.5),
        ("deep_refresh", 0),
        ("deep_refresh", 1001),
        ("noise", np.zeros((3, 4, 8, 8), np.float32)),
        ("noise", np.full((21, 4, 8, 8), np.nan, np.float32)),
        ("instruction", None),
        ("negative", 7),
    ],
)
def test_bad_values_are_named_before_any_work(tiny_editor, pictures, monkeypatch, field, value):
    monkeypatch.setattr(tiny_editor.backend, "start", lambda edits: pytest.fail("work had begun"))
    good = EditRequest(pictures[0], "make it night", size=16)
    bad = EditRequest(**{**vars(good), field: value})
    with pytest.raises(BadInput) as error:
        tiny_editor.edit_many([good, bad])
    name = {"sampler": "heun", "instruction": "instruction", "negative": "negative"}.get(field, field)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "magic"}, "unknown backend 'magic'"),
        ({"device": "tpu9"}, "unknown device 'tpu9'"),
        ({"device": "mps"}, "unknown device 'mps'"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there"),
        ({"dtype": "int3"}, "unknown dtype 'int3'"),
        ({"max_rows": 0}, "max_rows is 0"),
    ],
)
def test_unknown_machinery_is_refused_before_the_model_is_read(tmp_path, settings, message):
    with pytest.raises(BadInput, match=message):
        Editor.from_pretrained(tmp_path / "no such model", **settings)


def test_bfloat16_is_close_to_float32(tiny_pipeline, tiny_editor, pictures):
    half = Editor.from_pipeline(tiny_pipeline, device="cpu", dtype="bfloat16")
    settings = dict(steps=10, seed=1, size=16, text_guidance=3.0)
    ours = half.edit(pictures[0], "make it night", **settings).latents
    exact = tiny_editor.edit(pictures[0], "make it night", **settings).latents
    assert np.linalg.norm(ours - exact) <= 0.05 * np.linalg.norm(exact)
