"""Packed layers: the same numbers, whatever the size of the batch."""

import pytest
import tiny
import torch
from torch import nn

from ip2p_fast.cpu_packing import PackedConv2d, PackedLinear, can_pack, pack
from ip2p_fast.unet import UNet

DTYPES = [torch.float32, torch.bfloat16]
needs_packing = pytest.mark.skipif(not can_pack(torch.float32), reason="this build of PyTorch has no oneDNN")


def packed_unet(dtype):
    reference = tiny.unet(block_out_channels=(64, 128))
    unet = UNet.load(reference.config, reference.state_dict()).to(dtype)
    return pack(unet), UNet.load(reference.config, reference.state_dict()).to(dtype)


def inputs(rows, dtype):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(8, 8, 16, 16, generator=generator)
    timesteps = torch.rand(8, generator=generator) * 999
    context = torch.randn(8, 77, 32, generator=generator).to(dtype)
    return latents[:rows], timesteps[:rows], context[:rows]


@needs_packing
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.inference_mode()
def test_a_packed_unet_predicts_what_the_plain_one_does(dtype):
    if not can_pack(dtype):
        pytest.skip(f"this processor has no {dtype} primitives")
    packed, plain = packed_unet(dtype)
    latents, timesteps, context = inputs(3, dtype)
    ours = packed(latents, timesteps, packed.text_keys_values(context)).double()
    theirs = plain(latents, timesteps, plain.text_keys_values(context)).double()
    assert (ours - theirs).norm() <= (1e-5 if dtype == torch.float32 else 2e-2) * theirs.norm()


@needs_packing
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.inference_mode()
def test_a_row_is_the_same_bits_in_any_batch(dtype):
    if not can_pack(dtype):
        pytest.skip(f"this processor has no {dtype} primitives")
    packed, _ = packed_unet(dtype)
    latents, timesteps, context = inputs(8, dtype)
    text = packed.text_keys_values(context)
    alone = packed(latents[:1], timesteps[:1], [(k[:1], v[:1]) for k, v in text])
    for rows in (2, 3, 6, 8):
        together = packed(latents[:rows], timesteps[:rows], [(k[:rows], v[:rows]) for k, v in text])
        assert torch.equal(together[:1], alone)


@needs_packing
def test_no_plain_layer_is_left_and_odd_ones_stay():
    model = nn.ModuleDict(
        {"a": nn.Linear(4, 4), "b": nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, padding="same"))}
    )
    pack(model)
    assert type(model["a"]) is PackedLinear
    assert type(model["b"][0]) is PackedConv2d
    assert type(model["b"][1]) is nn.Conv2d


def test_float64_is_not_packed():
    assert not can_pack(torch.float64)
