"""Prompt-to-Prompt in the loop, against diffusers with every attention map in memory."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from ip2p_fast import kernels
from ip2p_fast.backends.torch_backend import TorchBackend
from ip2p_fast.benchmarks.peers.prompt_to_prompt import PromptToPrompt
from ip2p_fast.checkpoints import Checkpoint
from ip2p_fast.errors import BadInput
from ip2p_fast.guidance import Row
from ip2p_fast.loop import LoopEdit, StepLoop
from ip2p_fast.samplers import sampler_table
from ip2p_fast.sharing import LocalBlend, Sharing, TextControl
from ip2p_fast.tokenizer import Tokenizer

STEPS = 6
SIZE = (16, 24)
CAPTIONS = ("a watercolour painting of mountains at sunset", "a watercolour painting of mountains at night")


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def pipe(request, tmp_path_factory):
    scheduler = tiny.SCHEDULER | {"prediction_type": request.param}
    return tiny.text_to_image(tmp_path_factory.mktemp("base"), scheduler)


@pytest.fixture(scope="module")
def script(pipe):
    return PromptToPrompt(pipe)


@pytest.fixture(scope="module")
def backend(pipe):
    checkpoint = Checkpoint(
        name="base",
        path=None,
        unet_config=dict(pipe.unet.config),
        unet_state=pipe.unet.state_dict(),
        vae=pipe.vae,
        text_encoder=pipe.text_encoder,
        tokenizer=Tokenizer.from_transformers(pipe.tokenizer),
        scheduler_config=dict(pipe.scheduler.config),
    )
    made = TorchBackend(checkpoint, torch.device("cpu"), torch.float32, shares_maps=True)
    made.tokenizer = checkpoint.tokenizer
    return made


def noise_of(seed):
    height, width = SIZE
    return np.random.default_rng(seed).standard_normal((1 + STEPS, 4, height // 2, width // 2), np.float32)


def pair(backend, seed=0, cfg=5.0, captions=CAPTIONS, **sharing):
    """A source and a target in one loop."""
    table = sampler_table("euler_a", STEPS, backend.info.schedule)
    rows = ((Row(True, False, cfg), Row(False, False, 1 - cfg)),) * STEPS
    tokens = [np.stack([backend.tokenizer.encode(text).ids for text in ("", caption)]) for caption in captions]
    source = LoopEdit(None, tokens[0], table, rows, seed, noise_of(seed), size=SIZE)
    return source, replace(source, tokens=tokens[1], sharing=Sharing(source, **sharing))


def run(backend, *edits):
    """Final latents of each edit."""
    loop = StepLoop(backend)
    keys = loop.add(edits)
    while len(loop):
        loop.step()
    latents = [backend.latents(key) for key in keys]
    loop.clear()
    return np.stack(latents)


def assert_close(ours, theirs):
    assert np.linalg.norm(ours - np.asarray(theirs)) <= 1e-4 * np.linalg.norm(theirs)


@pytest.mark.parametrize("mode", ["auto", "reference"])
@pytest.mark.parametrize("shared", [0, 3, STEPS])
def test_sharing_self_attention_equals_explicit_maps(backend, script, shared, mode):
    with kernels.use(mode):
        ours = run(backend, *pair(backend, self_steps=tuple(i < shared for i in range(STEPS))))
    theirs = script.latents(CAPTIONS, noise_of(0), 5.0, share_self=lambda i: i < shared)
    assert_close(ours, theirs)


def test_a_pair_is_the_same_bits_alone_and_in_company(backend):
    pairs = [
        pair(backend, seed=seed, cfg=3.0 + seed, self_steps=tuple(i < 2 * seed for i in range(STEPS)))
        for seed in range(3)
    ]
    alone = [run(backend, *one) for one in pairs]
    together = run(backend, *(edit for one in pairs for edit in one))
    assert np.array_equal(np.concatenate(alone), together)


def test_a_source_is_the_picture_it_would_be_without_a_target(backend):
    source, target = pair(backend, self_steps=(True,) * STEPS)
    assert np.array_equal(run(backend, source)[0], run(backend, source, target)[0])


@pytest.fixture
def control():
    rng = np.random.default_rng(5)
    matrix = rng.random((77, 77), np.float32) / 77
    return TextControl(matrix, rng.random(77, np.float32))


@pytest.mark.parametrize("own", [True, False])
def test_changing_the_maps_of_the_text_equals_explicit_maps(backend, script, control, own):
    if not own:
        control = replace(control, own=np.zeros(77, np.float32))
    text = tuple(control if i < 4 else None for i in range(STEPS))
    ours = run(backend, *pair(backend, self_steps=(False,) * STEPS, text=text))
    matrix, column = torch.from_numpy(control.matrix), torch.from_numpy(control.own)
    theirs = script.latents(
        CAPTIONS,
        noise_of(0),
        5.0,
        share_self=lambda i: False,
        change_text=lambda i: (lambda source, own: source @ matrix + own * column) if i < 4 else None,
    )
    assert_close(ours, theirs)


def test_a_local_blend_equals_one_on_explicit_maps(backend, script, control):
    words = np.zeros((2, 77), np.float32)
    words[0, 5:7], words[1, 3] = 1, 1
    downsampling, height, width = 2, SIZE[0] // 4, SIZE[1] // 4
    blend = LocalBlend(words[0], words[1], threshold=0.995, first_step=2, downsampling=downsampling)
    sharing = dict(self_steps=(True,) * STEPS, text=(control,) * STEPS)
    ours = run(backend, *pair(backend, **sharing, blend=blend))

    seen = script.injection.text_maps = []
    total, blended = torch.zeros(2, height, width), []

    def after_step(i, x):
        maps = torch.stack([m for m in seen if m.shape[2] == height * width])  # [layers, 2, heads, N, 77]
        seen.clear()
        of_words = torch.einsum("lphnw,pw->pn", maps, torch.from_numpy(words)) / maps.shape[0] / maps.shape[2]
        total.add_(of_words.view(2, height, width))
        if i < 2:
            return x
        wide = F.interpolate(F.max_pool2d(total[None], 3, 1, 1), size=x.shape[2:])[0]
        changes = (wide / wide.amax((1, 2), keepdim=True) > 0.995).any(0)
        blended.append(changes.float().mean().item())
        return torch.stack([x[0], torch.where(changes, x[1], x[0])])

    matrix, column = torch.from_numpy(control.matrix), torch.from_numpy(control.own)
    theirs = script.latents(
        CAPTIONS,
        noise_of(0),
        5.0,
        share_self=lambda i: True,
        change_text=lambda i: lambda source, own: source @ matrix + own * column,
        after_step=after_step,
    )
    script.injection.text_maps = None
    assert_close(ours, theirs)
    assert 0 < min(blended) < 1


def test_an_edit_cannot_share_with_one_that_is_not_there(backend):
    _, target = pair(backend, self_steps=(True,) * STEPS)
    with pytest.raises(BadInput, match="joins the loop in the same call"):
        StepLoop(backend).add([target])


def test_an_edit_cannot_share_with_one_of_other_guidance(backend):
    source, target = pair(backend, self_steps=(True,) * STEPS)
    other = replace(source, rows=((Row(True, False, 1.0),),) * STEPS)
    with pytest.raises(BadInput, match="same sampler table and guidance"):
        StepLoop(backend).add([other, replace(target, sharing=replace(target.sharing, source=other))])


def test_a_target_whose_source_has_left_goes_on_alone(backend):
    source, target = pair(backend, self_steps=(True,) * STEPS)
    loop = StepLoop(backend)
    first, second = loop.add([source, target])
    loop.step()
    loop.cancel(first)
    while len(loop):
        loop.step()
    assert np.isfinite(backend.latents(second)).all()
    loop.clear()
