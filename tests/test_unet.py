"""Our UNet against diffusers' UNet2DConditionModel on the same random weights."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from ip2p_fast.errors import ModelError
from ip2p_fast.unet import UNet

CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"

FAMILY = {
    "sd1": dict(block_out_channels=(32, 64, 96, 96), attention_head_dim=8, cross_attention_dim=24),
    "sd2": dict(
        block_out_channels=(32, 64, 96, 96),
        attention_head_dim=[2, 4, 6, 6],
        cross_attention_dim=40,
        use_linear_projection=True,
        upcast_attention=True,
    ),
    "pocket": dict(
        block_out_channels=(16, 32, 48),
        down_block_types=(PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN),
        up_block_types=(CROSS_UP, CROSS_UP, PLAIN_UP),
        attention_head_dim=4,
        cross_attention_dim=16,
        norm_num_groups=8,
        layers_per_block=1,
    ),
    "one level": dict(
        block_out_channels=(32,),
        down_block_types=(CROSS_DOWN,),
        up_block_types=(CROSS_UP,),
        attention_head_dim=2,
        cross_attention_dim=8,
        layers_per_block=3,
    ),
    "deep transformers": dict(
        block_out_channels=(32, 64),
        down_block_types=(PLAIN_DOWN, CROSS_DOWN),
        up_block_types=(CROSS_UP, PLAIN_UP),
        attention_head_dim=(4, 8),
        cross_attention_dim=8,
        transformer_layers_per_block=2,
        layers_per_block=1,
    ),
}


def diffusers_unet(in_channels=8, **config):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(in_channels=in_channels, **config).eval()
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "norm" in name:  # they start as ones and zeros, which would hide a mistake
                parameter.add_(0.2 * torch.randn_like(parameter))
    return unet


def relative_error(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (24, 40), (13, 9)], ids=str)
@pytest.mark.parametrize("family", FAMILY)
@torch.no_grad()
def test_same_prediction_as_diffusers(family, size):
    reference = diffusers_unet(**FAMILY[family])
    unet = UNet.load(reference.config, reference.state_dict())
    latents = torch.randn(3, 8, *size)
    timesteps = torch.tensor([999.0, 12.0, 333.25])
    context = torch.randn(3, 77, FAMILY[family]["cross_attention_dim"])
    ours = unet(latents, timesteps, unet.text_keys_values(context))
    assert relative_error(ours, reference(latents, timesteps, context).sample) <= 1e-5


@torch.no_grad()
def test_four_channel_models_run_too():
    reference = diffusers_unet(in_channels=4, **FAMILY["pocket"])
    unet = UNet.load(reference.config, reference.state_dict())
    latents, timesteps, context = torch.randn(2, 4, 8, 8), torch.tensor([5.0, 5.0]), torch.randn(2, 77, 16)
    ours = unet(latents, timesteps, unet.text_keys_values(context))
    assert relative_error(ours, reference(latents, timesteps, context).sample) <= 1e-5


@pytest.mark.parametrize("size", [(8, 8), (13, 9)], ids=str)
@pytest.mark.parametrize("family", FAMILY)
@torch.no_grad()
def test_deep_features_of_another_step_stand_in_for_all_below_the_first_level(family, size):
    reference = diffusers_unet(**FAMILY[family])
    unet = UNet.load(reference.config, reference.state_dict())
    before, now = torch.randn(2, 3, 8, *size)
    context = torch.randn(3, 77, FAMILY[family]["cross_attention_dim"])
    text = unet.text_keys_values(context)
    whole, deep = unet.with_deep(before, torch.full((3,), 600.0), text)
    assert torch.equal(whole, unet(before, torch.full((3,), 600.0), text))

    blocks = [reference.mid_block, *reference.up_blocks]
    kept = []
    hook = blocks[-2].register_forward_hook(lambda module, inputs, output: kept.append(output))
    reference(before, 600.0, context)
    hook.remove()
    assert relative_error(deep, kept[0]) <= 1e-5
    blocks[-2].register_forward_hook(lambda module, inputs, output: kept[0])
    expected = reference(now, 550.0, context).sample
    shallow, same = unet.with_deep(now, torch.full((3,), 550.0), text, deep=deep)
    assert relative_error(shallow, expected) <= 1e-5 and same is deep


def test_loading_takes_the_tensors_over_without_a_copy():
    reference = diffusers_unet(**FAMILY["pocket"])
    state = reference.state_dict()
    unet = UNet.load(reference.config, state)
    assert unet.time_embedding.linear_1.weight.data_ptr() == state["time_embedding.linear_1.weight"].data_ptr()


def test_missing_extra_and_misshapen_tensors_are_named():
    reference = diffusers_unet(**FAMILY["pocket"])
    state = dict(reference.state_dict())
    del state["conv_in.bias"]
    state["conv_in.scale"] = torch.zeros(1)
    state["conv_out.bias"] = torch.zeros(7)
    with pytest.raises(ModelError) as error:
        UNet.load(reference.config, state)
    message = str(error.value)
    assert "1 tensors missing: conv_in.bias" in message
    assert "1 tensors not expected: conv_in.scale" in message
    assert "conv_out.bias is (7,), must be (4,)" in message


@pytest.mark.parametrize(
    "change",
    [
        {"time_embedding_type": "fourier"},
        {"addition_embed_type": "text_time"},
        {"class_embed_type": "timestep"},
        {"down_block_types": ("AttnDownBlock2D", CROSS_DOWN, CROSS_DOWN)},
        {"up_block_types": (CROSS_UP, PLAIN_UP, PLAIN_UP)},
        {"layers_per_block": (1, 2, 1)},
        {"attention_head_dim": (4, 4)},
        {"attention_head_dim": 5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_architectures_are_refused_before_any_weight_is_read(change):
    config = dict(diffusers_unet(**FAMILY["pocket"]).config) | change
    with pytest.raises(ModelError, match="UNet config"):
        UNet.load(config, {})
