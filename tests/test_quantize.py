"""8-bit layers of the UNet, and the way through the transformers that a GPU takes, on a CPU."""

import pytest
import torch
from test_unet import FAMILY, diffusers_unet

from ip2p_fast import Editor, checkpoints, quantize, transformer
from ip2p_fast.backends.torch_backend import TorchBackend
from ip2p_fast.errors import BadInput
from ip2p_fast.kernels import quantize_rows
from ip2p_fast.kernels.reference import LARGEST
from ip2p_fast.layers import Conv2d, GroupNorm
from ip2p_fast.quantize import quantize_unet
from ip2p_fast.quantized_conv import DEVIATIONS, QuantizedConv2d, QuantizedGroupNorm
from ip2p_fast.quantized_linear import QuantizedLinear, QuantizedRows
from ip2p_fast.unet import UNet


@pytest.fixture(scope="module", params=["sd1", "sd2", "deep transformers"])
def peer(request):
    return diffusers_unet(**FAMILY[request.param])


def load(peer, **how):
    return UNet.load(peer.config, {name: tensor.clone() for name, tensor in peer.state_dict().items()}, **how)


@torch.inference_mode()
def predict(unet, peer):
    random = torch.Generator().manual_seed(1)
    latents = torch.randn(2, peer.config.in_channels, 16, 16, generator=random)
    context = torch.randn(2, 7, peer.config.cross_attention_dim, generator=random)
    return unet(latents, torch.tensor([3.0, 700.0]), unet.text_keys_values(context))


def distance(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


def test_the_way_a_gpu_takes_gives_what_a_cpu_gives(peer, monkeypatch):
    unet = load(peer)
    plain = predict(unet, peer)
    asked = []
    monkeypatch.setattr(transformer, "fuses_transformers", lambda x: asked.append(x) or True)
    assert distance(predict(unet, peer), plain) < 1e-5
    assert asked


def test_on_a_cpu_the_transformers_call_no_operator_of_a_gpu(peer, monkeypatch):
    for name in ("attention", "geglu"):
        monkeypatch.setattr(transformer, name, None)
    monkeypatch.setattr(transformer.LayerNorm, "of_sum", None)
    predict(load(peer), peer)


@pytest.mark.parametrize(("kind", "bound"), [("int8", 0.1), ("fp8", 0.15)])
def test_eight_bits_cost_little(peer, kind, bound):
    exact = predict(load(peer), peer)
    quantized = predict(quantize_unet(load(peer), kind), peer)
    assert 1e-4 < distance(quantized, exact) < bound


@pytest.mark.parametrize(("kind", "bound"), [("int8", 0.03), ("fp8", 0.1)])
def test_linear_layers_alone_cost_less(peer, kind, bound, monkeypatch):
    monkeypatch.setattr(quantize, "_quantize_resnet", lambda block, dtype: None)
    exact = predict(load(peer), peer)
    assert 1e-4 < distance(predict(quantize_unet(load(peer), kind), peer), exact) < bound


def test_every_linear_layer_that_reads_tokens_is_in_eight_bits(peer):
    unet = quantize_unet(load(peer), "int8")
    plain = {name for name, module in unet.named_modules() if isinstance(module, torch.nn.Linear)}
    names = ("time_embedding", "time_projection", "attn2.to_k", "attn2.to_v")
    assert plain and all(any(part in name for part in names) for name in plain)
    assert any(isinstance(module, QuantizedLinear) for module in unet.modules())


def test_the_convolutions_of_residual_blocks_are_in_eight_bits_and_no_others(peer):
    unet = quantize_unet(load(peer), "int8")
    plain = {name for name, module in unet.named_modules() if isinstance(module, torch.nn.Conv2d)}
    others = ("conv_in", "conv_out", "conv_shortcut", "downsamplers", "upsamplers")
    assert plain and all(any(part in name for part in others) for name in plain)
    eight = [module for module in unet.modules() if isinstance(module, QuantizedConv2d)]
    assert len(eight) == 2 * len(unet._resnets())
    assert all(module.weight.dtype == torch.int8 for module in eight)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_norms_own_weights_tell_its_range(dtype):
    norm = GroupNorm(2, 4, 1e-5)
    norm.weight.data, norm.bias.data = torch.tensor([2.0, -1.0, 0.0, 0.0]), torch.tensor([0.5, 0.0, -3.0, 0.0])
    quantized = QuantizedGroupNorm(norm, dtype)
    reach, largest = DEVIATIONS[dtype], LARGEST[dtype]
    ends = torch.nn.functional.silu(torch.tensor([2 * reach + 0.5, reach, -3.0]))
    torch.testing.assert_close(quantized.scale[:3] * largest, ends.abs())
    assert quantized.scale[3] == 1  # a channel of zeros
    x = torch.randn(2, 4, 6, 5)
    values = quantized(x).float() * quantized.scale[:, None, None]
    torch.testing.assert_close(values, norm(x, silu=True), atol=ends.max() / largest, rtol=1 / 16)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.int8, 0.06), (torch.float8_e4m3fn, 0.07)])
def test_a_norm_and_its_convolution_cost_little_in_eight_bits(dtype, bound):
    norm, conv = GroupNorm(4, 32, 1e-5), Conv2d(32, 24, 3, padding=1)
    norm.weight.data, norm.bias.data = torch.rand(32) + 0.2, torch.randn(32)
    x, shift, residual = torch.randn(2, 32, 9, 7), torch.randn(2, 32), torch.randn(2, 24, 9, 7)
    exact = conv(norm(x, silu=True, shift=shift), residual)
    quantized = QuantizedGroupNorm(norm, dtype)
    ours = QuantizedConv2d(conv, quantized)(quantized(x, shift=shift), residual)
    assert 1e-4 < distance(ours - residual, exact - residual) < bound


def test_a_layer_takes_rows_that_are_in_eight_bits_already():
    layer = QuantizedLinear(torch.randn(6, 8), torch.randn(6), torch.int8)
    x, residual = torch.randn(2, 3, 8), torch.randn(2, 3, 6)
    rows = QuantizedRows(*quantize_rows(x, torch.int8))
    assert torch.equal(layer(rows, residual), layer(x) + residual)


def test_other_kinds_and_shared_maps_are_refused(peer):
    with pytest.raises(BadInput, match="quantize is 'int4': choose one of int8, fp8"):
        quantize_unet(load(peer), "int4")
    with pytest.raises(BadInput, match="attention maps are shared"):
        TorchBackend(checkpoints.load("pocket"), torch.device("cpu"), torch.float32, shares_maps=True, quantize="int8")


def test_an_editor_edits_in_int8():
    editor = Editor.from_pretrained("pocket", backend="torch", device="cpu", dtype="int8")
    assert editor.backend.dtype == "int8"
    assert any(isinstance(module, QuantizedLinear) for module in editor.backend.unet.modules())
