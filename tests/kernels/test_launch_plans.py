"""One sample alone gives each of an H100's 132 multiprocessors a block, at every group norm of Stable Diffusion 1.5."""

import pytest

triton = pytest.importorskip("triton")

from ip2p_fast.kernels.triton_kernels import group_norm_silu  # noqa: E402

MULTIPROCESSORS = 132
# channels and pixels a side, 512x512: the resnets' two norms, the transformers' and the last
NORMS = [
    *((channels, 64) for channels in (320, 640, 960)),
    *((channels, 32) for channels in (320, 640, 960, 1280, 1920)),
    *((channels, 16) for channels in (640, 1280, 1920, 2560)),
    *((channels, 8) for channels in (1280, 2560)),
]


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("channels", "side"), NORMS)
def test_group_norm_fills_the_chip_with_one_sample(channels, side, planar):
    pixels, wide = group_norm_silu.block(channels, side * side, planar)
    assert triton.cdiv(side * side, pixels) * triton.cdiv(channels, wide) >= MULTIPROCESSORS
