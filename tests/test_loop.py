"""The loop: edits join and leave at any step, and none notices the others."""

import dataclasses

import numpy as np
import pytest

from ip2p_fast.errors import Cancelled
from ip2p_fast.guidance import dual_guidance
from ip2p_fast.loop import LoopEdit, StepLoop
from ip2p_fast.samplers import sampler_table


@pytest.fixture
def make_edit(tiny_editor, pictures):
    def make(picture=0, steps=4, sampler="euler_a", seed=0, scales=(7.5, 1.5), **changes):
        info = tiny_editor.backend.info
        tokens = np.stack([tiny_editor.tokenizer.encode(text).ids for text in ("", "make it night")])
        table = sampler_table(sampler, steps, info.schedule)
        rows = (dual_guidance(*scales),) * steps
        return LoopEdit(np.array(pictures[picture]), tokens, table, rows, seed, **changes)

    return make


@pytest.fixture
def loop(tiny_editor):
    loop = StepLoop(tiny_editor.backend)
    yield loop
    loop.clear()


def run(loop, *edits):
    keys = loop.add(edits)
    while len(loop):
        loop.step()
    latents = [loop.backend.latents(key) for key in keys]
    for key in keys:
        loop.finish(key)
    return latents


def test_an_edit_is_the_same_alone_and_among_edits_that_come_and_go(loop, make_edit):
    alone = run(loop, make_edit(steps=6, seed=3))[0]
    (early,) = loop.add([make_edit(picture=3, steps=3, sampler="dpmpp_2m", seed=1)])
    loop.step()
    keys = loop.add([make_edit(steps=6, seed=3), make_edit(picture=1, steps=9, scales=(1, 1))])
    finished = []
    while keys[0] not in finished:
        finished += loop.step()
    assert early in finished
    np.testing.assert_array_equal(loop.backend.latents(keys[0]), alone)  # bit for bit


def test_step_names_the_edits_that_are_done(loop, make_edit):
    short, long = loop.add([make_edit(steps=1), make_edit(steps=2)])
    assert loop.step() == [short]
    assert len(loop) == 1
    assert loop.step() == [long]
    assert loop.step() == []


def test_the_seed_decides_the_noise(loop, make_edit):
    first, same, other = run(loop, make_edit(seed=5), make_edit(seed=5), make_edit(seed=6))
    np.testing.assert_allclose(first, same, rtol=1e-5, atol=1e-5)
    assert np.abs(first - other).max() > 0.1


def test_given_noise_takes_the_place_of_the_seed(loop, make_edit):
    seed = 8
    random = np.random.Generator(np.random.Philox(key=seed))
    draws = [random.standard_normal((4, 8, 8), dtype=np.float32) for _ in range(4)]
    noise = np.stack([*draws, np.zeros((4, 8, 8), np.float32)])  # the last step of euler_a adds none
    by_seed, by_noise = run(loop, make_edit(seed=seed), make_edit(seed=0, noise=noise))
    np.testing.assert_allclose(by_seed, by_noise, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("max_rows", [1, 2, 4])
def test_max_rows_splits_the_batch_and_changes_nothing(tiny_editor, make_edit, monkeypatch, max_rows):
    edits = [make_edit(seed=0), make_edit(seed=1, scales=(3, 1)), make_edit(seed=2, picture=3)]
    whole = run(StepLoop(tiny_editor.backend), *edits)
    sizes = []
    forward = tiny_editor.backend.unet.forward
    monkeypatch.setattr(
        tiny_editor.backend.unet,
        "forward",
        lambda latents, *rest: sizes.append(len(latents)) or forward(latents, *rest),
    )
    split = run(StepLoop(tiny_editor.backend, max_rows=max_rows), *edits)
    assert max(sizes) == max_rows and sum(sizes) == 4 * 8
    for ours, expected in zip(split, whole, strict=True):
        assert np.linalg.norm(ours - expected) <= 1e-5 * np.linalg.norm(expected)


def test_rows_run_are_the_plans_and_no_more(tiny_editor, make_edit, monkeypatch):
    rows = []
    forward = tiny_editor.backend.unet.forward
    monkeypatch.setattr(
        tiny_editor.backend.unet, "forward", lambda latents, *rest: rows.append(len(latents)) or forward(latents, *rest)
    )
    run(StepLoop(tiny_editor.backend), make_edit(scales=(1, 1), steps=2))
    run(StepLoop(tiny_editor.backend), make_edit(scales=(7, 1), steps=2))
    run(StepLoop(tiny_editor.backend), make_edit(scales=(7, 2), steps=2))
    assert rows == [1, 1, 2, 2, 3, 3]


def test_previews_come_at_any_step_and_end_as_the_picture(loop, make_edit):
    previews = []
    (key,) = loop.add([make_edit(steps=3, on_step=lambda progress: previews.append(progress.preview()))])
    while len(loop):
        loop.step()
    picture = loop.finish(key)
    assert [preview.shape for preview in previews] == [picture.shape] * 3
    np.testing.assert_array_equal(previews[-1], picture)  # Euler's last step lands on the prediction itself


def test_a_picture_may_come_when_its_edit_has_left(loop, make_edit):
    keys = loop.add([make_edit(steps=2, seed=1), make_edit(steps=2, seed=2)])
    for _ in range(2):
        loop.step()
    wanted = [loop.backend.finishing(key)() for key in keys]
    coming = [loop.finishing(key) for key in keys]
    assert not loop.backend._edits
    for picture, other in zip(coming, wanted, strict=True):
        np.testing.assert_array_equal(picture(), other)


def test_raising_cancelled_takes_that_edit_out_and_no_other(loop, make_edit):
    def give_up(progress):
        if progress.step == 2:
            raise Cancelled("enough")

    gone, stays = loop.add([make_edit(on_step=give_up), make_edit(seed=1)])
    done = [key for _ in range(4) for key in loop.step()]
    assert done == [stays]
    assert loop.backend._edits.keys() == {stays}
    loop.cancel(gone)  # again, to no effect


def test_edits_of_two_sizes_do_not_undo_each_others_batches(loop, make_edit, pictures):
    small = np.array(pictures[0].resize((64, 64)))
    large = np.array(pictures[0].resize((128, 64)))
    for picture in (small, large, small):
        loop.add([dataclasses.replace(make_edit(), image=picture)])
    loop.step()
    rows = {size: entry[2] for size, entry in loop.backend._rows.items()}
    assert len(rows) == 2
    loop.step()
    assert all(loop.backend._rows[size][2] is before for size, before in rows.items())


def test_an_edit_that_leaves_leaves_nothing_behind(loop, make_edit):
    keys = loop.add([make_edit(), make_edit(seed=1)])
    loop.step()
    loop.cancel(keys[0])
    loop.cancel(keys[1])
    backend = loop.backend
    assert not len(loop) and not backend._edits and not backend._batches and not backend._rows


def test_a_step_of_some_edits_leaves_the_others_where_they_are(loop, make_edit):
    alone = run(loop, make_edit(steps=2, seed=3))[0]
    first, second = loop.add([make_edit(steps=2), make_edit(steps=2, seed=3)])
    assert loop.step({first}) == []
    assert loop.step({first}) == [first]
    assert loop.step() == []
    assert loop.step() == [second]
    np.testing.assert_array_equal(loop.backend.latents(second), alone)


def test_a_start_that_fails_leaves_nothing_behind(loop, make_edit, monkeypatch):
    start = loop.backend.start

    def failing(edits):
        start(edits)
        raise MemoryError

    monkeypatch.setattr(loop.backend, "start", failing)
    with pytest.raises(MemoryError):
        loop.add([make_edit()])
    assert not len(loop) and not loop.backend._edits
