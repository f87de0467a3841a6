"""group_norm_silu in Triton, three short launches, so that one image of few pixels still fills a GPU.

Lineage: group norm (Wu and He 2018), statistics merged as in Chan, Golub and LeVeque (1983).
1. `measure`: each program takes a slab of pixels x a block of channels, whole cache lines whatever the group's width,
   and leaves the mean and the squared deviations of every channel of its slab.
2. `combine`: one program a (sample, group) merges its channels and slabs into the centre and scale of each channel.
3. `normalise`: y = SiLU((x - centre) scale + bias), element-wise; x comes from L2.
Both memory formats are strides. The two numbers, per value: about 30 FLOPs, and sizeof(x) bytes read from memory, once
more from L2, and written. Stable Diffusion 1.5's largest at 512x512, three rows of 960 channels at 64x64 in bfloat16:
0.35 GFLOP (5 microseconds at 67 TFLOP/s) and 47 MB (14 at 3.35 TB/s): memory binds. The second launch reads 8 bytes a
channel and slab; only it has fewer programs than an H100 has multiprocessors, one a group.
The slabs depend on the shape only, so a sample's bits do not depend on its batch.

Two launches in CUDA C++, whose CTAs merged the slabs again before they normalised, took more than twice as long at
every shape that was tried on an H200.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ip2p_fast.kernels.reference import LARGEST
from ip2p_fast.kernels.resnet_schemas import output_format

MULTIPROCESSORS = 132  # an H100's


def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float = 1e-5,
    shift: Tensor | None = None,
    silu: bool = True,
) -> Tensor:
    """See `ip2p_fast.kernels.group_norm_silu`."""
    y = torch.empty_like(x, memory_format=output_format(x))
    launch(x, weight, bias, groups, eps, shift, silu, y)
    return y


def launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    shift: Tensor | None,
    silu: bool,
    y: Tensor,
    step: Tensor | None = None,
) -> None:
    """Fills `y`, of the shape of x; of an 8-bit dtype with the results divided by `step` [C]."""
    images, channels, height, width = x.shape
    pixels = height * width
    x = x.contiguous(memory_format=output_format(y))
    if x.numel() == 0:
        return
    planar = output_format(y) == torch.contiguous_format
    channel_stride, pixel_stride = (pixels, 1) if planar else (1, channels)
    block_pixels, block_channels = block(channels, pixels, planar)
    slabs = triton.cdiv(pixels, block_pixels)
    blocks = triton.cdiv(channels, block_channels)
    partial = torch.empty(2, images, slabs, channels, dtype=torch.float32, device=x.device)  # mean, squared deviations
    affine = torch.empty(2, images, channels, dtype=torch.float32, device=x.device)  # centre, scale
    size = {"BLOCK_PIXELS": block_pixels, "BLOCK_CHANNELS": block_channels}
    grid = (slabs, blocks, images)

    measure_kernel[grid](x, partial, images, slabs, channels, pixels, channel_stride, pixel_stride, **size)
    combine_kernel[(groups, images)](
        partial,
        weight.contiguous(),
        shift if shift is None else shift.contiguous(),
        affine,
        images,
        slabs,
        channels,
        pixels,
        channels // groups,
        eps,
        SLAB_PIXELS=block_pixels,
        BLOCK_SLABS=slabs_at_once(slabs, channels // groups),
        BLOCK_CHANNELS=triton.next_power_of_2(channels // groups),
        HAS_SHIFT=shift is not None,
    )
    normalise_kernel[grid](
        x,
        affine,
        bias.contiguous(),
        step if step is None else step.contiguous(),
        y,
        images,
        channels,
        pixels,
        channel_stride,
        pixel_stride,
        SILU=silu,
        LARGEST=0.0 if step is None else LARGEST[y.dtype],
        ROUND=y.dtype == torch.int8,
        **size,
    )


def block(channels: int, pixels: int, planar: bool) -> tuple[int, int]:
    """Pixels and channels of a program: the largest of which one sample alone makes one for every multiprocessor."""
    sizes = [(256, 8), (256, 4), (128, 4), (64, 4)] if planar else [(16, 128), (8, 128), (4, 128), (4, 64)]
    for block_pixels, block_channels in sizes:
        if triton.cdiv(pixels, block_pixels) * triton.cdiv(channels, block_channels) >= MULTIPROCESSORS:
            return block_pixels, block_channels
    return sizes[-1]


def slabs_at_once(slabs: int, width: int) -> int:
    """Slabs that `combine` merges in one turn, of a group of that many channels: about 2,048 values."""
    return min(triton.next_power_of_2(slabs), max(16, 2048 // triton.next_power_of_2(width)))


@triton.jit
def measure_kernel(
    x,  # [N, C, pixels], by strides
    partial,  # [2, N, slabs, C]
    images,
    slabs,
    channels,
    pixels,
    channel_stride,
    pixel_stride,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    slab, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    pixel = slab * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)[:, None]
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)[None, :]
    inside = (pixel < pixels) & (channel < channels)
    offset = image * channels * pixels + channel.to(tl.int64) * channel_stride + pixel.to(tl.int64) * pixel_stride
    value = tl.load(x + offset, mask=inside, other=0.0).to(tl.float32)  # [BLOCK_PIXELS, BLOCK_CHANNELS]

    count = tl.minimum(pixels - slab * BLOCK_PIXELS, BLOCK_PIXELS).to(tl.float32)
    # sums of deviations from the first pixel keep the digits that sums of large values lose
    first = image * channels * pixels + slab.to(tl.int64) * BLOCK_PIXELS * pixel_stride
    first += channel.to(tl.int64) * channel_stride
    origin = tl.load(x + first, mask=channel < channels, other=0.0).to(tl.float32)  # [1, BLOCK_CHANNELS]
    mean = tl.sum(origin, 0) + tl.sum(tl.where(inside, value - origin, 0.0), 0) / count
    deviation = tl.where(inside, value - mean[None, :], 0.0)
    squares = tl.sum(deviation * deviation, 0)

    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    here = (image * slabs + slab) * channels + channel
    tl.store(partial + here, mean, mask=channel < channels)
    tl.store(partial + images * slabs * channels + here, squares, mask=channel < channels)


@triton.jit
def combine_kernel(
    partial,  # [2, N, slabs, C]
    weight,  # [C]
    shift,  # [N, C] or None
    affine,  # [2, N, C]
    images,
    slabs,
    channels,
    pixels,
    width,  # channels a group
    eps,
    SLAB_PIXELS: tl.constexpr,
    BLOCK_SLABS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, BLOCK_CHANNELS)
    channel = tl.program_id(0) * width + lane
    owned = lane < width
    offset = tl.zeros([BLOCK_CHANNELS], tl.float32)
    if HAS_SHIFT:
        offset = tl.load(shift + image * channels + channel, mask=owned, other=0.0).to(tl.float32)

    seen = 0.0
    mean = 0.0
    m2 = 0.0
    for start in range(0, slabs, BLOCK_SLABS):
        slab = start + tl.arange(0, BLOCK_SLABS)[:, None]
        inside = (slab < slabs) & owned[None, :]
        here = (image * slabs + slab) * channels + channel[None, :]
        means = tl.load(partial + here, mask=inside, other=0.0) + offset[None, :]
        squares = tl.load(partial + images * slabs * channels + here, mask=inside, other=0.0)
        count = tl.where(inside, tl.minimum(pixels - slab * SLAB_PIXELS, SLAB_PIXELS).to(tl.float32), 0.0)
        total = tl.sum(count)
        # the first mean as origin keeps the weighted sum as exact as the means themselves
        origin = tl.sum(tl.where((slab == start) & (lane[None, :] == 0), means, 0.0))
        block_mean = origin + tl.sum(count * (means - origin)) / total
        block_m2 = tl.sum(squares) + tl.sum(count * (means - block_mean) * (means - block_mean))
        delta = block_mean - mean
        share = total / (seen + total)
        mean += delta * share
        m2 += block_m2 + delta * delta * seen * share
        seen += total

    scale = 1.0 / tl.sqrt(m2 / seen + eps) * tl.load(weight + channel, mask=owned, other=0.0).to(tl.float32)
    tl.store(affine + image * channels + channel, mean - offset, mask=owned)
    tl.store(affine + (images + image) * channels + channel, scale, mask=owned)


@triton.jit
def normalise_kernel(
    x,  # [N, C, pixels], by strides
    affine,  # [2, N, C]
    bias,  # [C]
    step,  # [C], where LARGEST is not 0
    y,  # as x
    images,
    channels,
    pixels,
    channel_stride,
    pixel_stride,
    SILU: tl.constexpr,
    LARGEST: tl.constexpr,  # of the 8-bit numbers of y, or 0: not quantized
    ROUND: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    image = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)[:, None]
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)[None, :]
    present = channel < channels
    inside = (pixel < pixels) & present
    offset = image * channels * pixels + channel.to(tl.int64) * channel_stride + pixel.to(tl.int64) * pixel_stride

    centre = tl.load(affine + image * channels + channel, mask=present, other=0.0)
    scale = tl.load(affine + (images + image) * channels + channel, mask=present, other=0.0)
    added = tl.load(bias + channel, mask=present, other=0.0).to(tl.float32)
    value = tl.load(x + offset, mask=inside, other=0.0).to(tl.float32)
    value = (value - centre) * scale + added
    if SILU:
        value = value / (1.0 + tl.exp(-value))
    if LARGEST > 0:
        value = value / tl.load(step + channel, mask=present, other=1.0)
        value = tl.minimum(tl.maximum(value, -LARGEST), LARGEST)
        if ROUND:
            value = (value + 12582912.0) - 12582912.0  # as in layer_norm.py
    tl.store(y + offset, value.to(y.dtype.element_ty), mask=inside)
