"""Between the page and the engine: what is asked for, what comes of it, and how it is stopped."""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ip2p_fast import Editor
from ip2p_fast.app.edits import MAX_SEED, Ask, Progress, Result, Running, chosen_seed, edited
from ip2p_fast.app.pictures import samples
from ip2p_fast.errors import BadInput, Cancelled
from ip2p_fast.serving.engine import Engine
from ip2p_fast.serving.tickets import QueueFull

PICTURE = Image.open(samples()[0].path).convert("RGB")
ASK = Ask("make it night", 2.0, 1.5, 7, 4, "lcm")


@pytest.fixture(scope="module")
def engine():
    made = Engine(Editor.from_pretrained("pocket-student", backend="onnx"), max_queue=8)
    made.start(warm_up=False)
    yield made
    made.stop()


def seen_of(engine, asks, mask=None, previews=0, picture=PICTURE):
    async def collect():
        return [seen async for seen in edited(engine, Running(), "me", picture, mask, asks, previews)]

    return asyncio.run(collect())


def test_the_result_is_the_editors_and_steps_and_previews_come_before_it(engine):
    *progress, result = seen_of(engine, [ASK], previews=3)
    theirs = Editor.from_pretrained("pocket-student", backend="onnx").edit(
        PICTURE, "make it night", text_guidance=2.0, image_guidance=1.5, seed=7, steps=4, sampler="lcm"
    )
    assert isinstance(result, Result)
    apart = np.abs(np.asarray(result.picture).astype(int) - np.asarray(theirs.images[0]))
    assert apart.max() <= 1
    done = [one.done for one in progress]
    assert progress[0] == Progress(0, 4) and done == sorted(done) and all(one.total == 4 for one in progress)


def test_previews_are_as_large_as_the_picture_and_come_nearer_to_the_result(engine):
    picture = PICTURE.resize((150, 100))
    *progress, result = seen_of(engine, [replace(ASK, steps=60, sampler="euler_a")], previews=10, picture=picture)
    previews = [one.preview for one in progress if one.preview is not None]
    assert len(previews) > 1 and {one.size for one in previews} == {(150, 100)}
    apart = [np.abs(np.asarray(one).astype(int) - np.asarray(result.picture)).mean() for one in previews]
    assert apart[-1] < apart[0]


def test_all_edits_of_a_call_come_each_under_its_number(engine):
    asks = [Ask("make it night", scale, 1.5, 7, 2, "lcm") for scale in (1.0, 4.0, 8.0)]
    results = {seen.edit: seen.picture for seen in seen_of(engine, asks) if isinstance(seen, Result)}
    assert sorted(results) == [0, 1, 2]
    alone = seen_of(engine, asks[2:])[-1].picture
    assert np.abs(np.asarray(results[2]).astype(int) - np.asarray(alone)).max() <= 1


def test_outside_the_mask_a_picture_of_any_size_keeps_its_pixels(engine):
    picture = PICTURE.resize((150, 100))
    mask = Image.new("L", picture.size, 0)
    mask.paste(255, (0, 0, 75, 100))
    result = np.asarray(seen_of(engine, [ASK], mask, picture=picture)[-1].picture)
    given = np.asarray(picture)
    np.testing.assert_array_equal(result[:, 75:], given[:, 75:])
    assert np.any(result[:, :75] != given[:, :75])


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (Ask("  ", 2.0, 1.5, 7, 4, "lcm"), "the instruction is empty"),
        (Ask("very " * 100, 2.0, 1.5, 7, 4, "lcm"), "shorten it"),
        (Ask("make it night", 2.0, 1.5, 7, 4, "lcm", "dark"), "distilled model"),
        (Ask("make it night", 2.0, 1.5, 7, 4, "magic"), "unknown sampler"),
    ],
)
def test_what_cannot_be_edited_is_refused(engine, ask, words):
    with pytest.raises(BadInput, match=words):
        seen_of(engine, [ask])


def test_more_edits_than_may_wait_are_refused(engine):
    with pytest.raises(QueueFull):
        seen_of(engine, [ASK] * 9)


@pytest.mark.parametrize("how", ["stop", "leave"])
def test_stopping_and_leaving_end_the_edit_before_its_next_steps(engine, how):
    running = Running()

    async def run():
        seen = edited(engine, running, "me", PICTURE, None, [Ask("make it night", 2.0, 1.5, 7, 1000, "euler_a")])
        async for one in seen:
            if one.done >= 2:
                if how == "leave":
                    break
                running.stop("someone else")
                running.stop("me")
        await seen.aclose()
        return one.done

    if how == "stop":
        with pytest.raises(Cancelled):
            asyncio.run(run())
    else:
        assert asyncio.run(run()) < 1000
    running.stop("me")  # nothing is left to stop
    for _ in range(500):
        if engine.in_flight == 0:
            break
        asyncio.run(asyncio.sleep(0.01))
    assert engine.in_flight == 0 and engine.queue_length == 0


def test_who_leaves_while_the_engine_takes_the_edit_leaves_no_edit_behind(engine, monkeypatch):
    submit, taken = engine.submit, []

    def slow(*given, **more):
        time.sleep(0.2)
        taken.append(submit(*given, **more))
        return taken[0]

    monkeypatch.setattr(engine, "submit", slow)

    async def leave():
        ask = replace(ASK, steps=1000, sampler="euler_a")
        waiting = asyncio.ensure_future(anext(edited(engine, Running(), "me", PICTURE, None, [ask])))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0.3)

    asyncio.run(leave())
    assert isinstance(taken[0].error, Cancelled)


def test_a_seed_is_drawn_unless_it_is_fixed():
    assert chosen_seed(True, 7.0) == 7
    drawn = {chosen_seed(False, 7.0) for _ in range(4)}
    assert len(drawn) > 1 and all(0 <= seed < 2**31 for seed in drawn)


@pytest.mark.parametrize("seed", [None, -1, 1.5, MAX_SEED + 1])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(BadInput, match="the seed is"):
        chosen_seed(True, seed)
