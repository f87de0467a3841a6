"""One sample alone gives each of an H100's 132 multiprocessors a block, at every group norm of Stable Diffusion 1.5."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

from ip2p_fast.kernels.triton_kernels import group_norm_silu  # noqa: E402

PLAN = Path(__file__).parents[2] / "csrc" / "cuda" / "group_norm_plan.h"
MULTIPROCESSORS = 132
# channels and pixels a side, 512x512: the resnets' two norms, the transformers' and the last
NORMS = [
    *((channels, 64) for channels in (320, 640, 960)),
    *((channels, 32) for channels in (320, 640, 960, 1280, 1920)),
    *((channels, 16) for channels in (640, 1280, 1920, 2560)),
    *((channels, 8) for channels in (1280, 2560)),
]


class Plan(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("slab_pixels", "slabs", "part_groups", "parts")]


@pytest.fixture(scope="module")
def cuda_plan(tmp_path_factory):
    """The CUDA kernel's plan, from its header compiled as plain C++."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("plan")
    (folder / "plan.cpp").write_text(
        f'#include "{PLAN}"\n'
        'extern "C" ip2p::GroupNormPlan plan(int64_t c, int64_t p, int64_t g, int64_t bytes, int64_t pack) '
        "{ return ip2p::plan_group_norm(c, p, g, bytes, pack); }\n"
    )
    library = folder / "plan.so"
    subprocess.run(["c++", "-std=c++20", "-shared", "-fPIC", folder / "plan.cpp", "-o", library], check=True)
    plan = ctypes.CDLL(library).plan
    plan.restype, plan.argtypes = Plan, [ctypes.c_int64] * 5
    return plan


@pytest.mark.parametrize(("channels", "side"), NORMS)
def test_the_cuda_kernel_fills_the_chip_with_one_sample(cuda_plan, channels, side):
    for item_bytes in (2, 4):
        plan = cuda_plan(channels, side * side, 32, item_bytes, 16 // item_bytes)
        assert plan.slabs * plan.parts >= MULTIPROCESSORS
        assert plan.slabs * plan.slab_pixels >= side * side > (plan.slabs - 1) * plan.slab_pixels
        assert plan.parts * plan.part_groups == 32
        assert plan.part_groups * (channels // 32) % (16 // item_bytes) == 0, "a part begins within a load"
        assert plan.slabs <= 64, "every block merges the statistics of all slabs"


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("channels", "side"), NORMS)
def test_the_triton_kernel_fills_the_chip_with_one_sample(channels, side, planar):
    pixels, wide = group_norm_silu.block(channels, side * side, planar)
    assert triton.cdiv(side * side, pixels) * triton.cdiv(channels, wide) >= MULTIPROCESSORS


@pytest.mark.parametrize(("channels", "pixels", "groups"), [(20, 63, 10), (10, 1, 10), (600, 15, 2), (6144, 7, 1)])
def test_shapes_that_cannot_fill_it_are_covered_all_the_same(cuda_plan, channels, pixels, groups):
    plan = cuda_plan(channels, pixels, groups, 2, 1)
    assert plan.parts * plan.part_groups == groups and plan.slabs * plan.slab_pixels >= pixels
