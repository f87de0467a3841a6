"""The Triton kernels without a GPU: their contract in the interpreter, and their compilation for three chips."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from ip2p_fast.kernels.triton_kernels import (  # noqa: E402
    attention,
    geglu,
    group_norm_silu,
    guided_step,
    layer_norm,
    matmul,
    quantized_conv2d,
)

FLOATS = ("x", "history", "coefficients", "noise", "weights", "partial", "affine", "weight", "bias", "x_next")
POINTERS = {name: "*fp32" for name in (*FLOATS, "history_next", "shift")} | {"row_start": "*i64"}
NORM_BLOCKS = {"BLOCK_PIXELS": 16, "BLOCK_CHANNELS": 128}
KERNELS = {
    "guided_step": (guided_step.guided_step_kernel, {"eps": "*bf16"}, {"BLOCK": guided_step.BLOCK}),
    "measure": (group_norm_silu.measure_kernel, {"x": "*bf16"}, NORM_BLOCKS),
    "combine": (
        group_norm_silu.combine_kernel,
        {"eps": "fp32"},
        {"SLAB_PIXELS": 16, "BLOCK_SLABS": 32, "BLOCK_CHANNELS": 64, "HAS_SHIFT": True},
    ),
    "gate": (geglu.gate_kernel, {"both": "*bf16", "out": "*bf16"}, {"BLOCK": geglu.BLOCK}),
    "normalise": (
        group_norm_silu.normalise_kernel,
        {"x": "*bf16", "y": "*bf16"},
        {**NORM_BLOCKS, "SILU": True, "LARGEST": 0.0, "ROUND": False, "step": None},
    ),
    "normalise, int8": (
        group_norm_silu.normalise_kernel,
        {"x": "*bf16", "y": "*i8", "step": "*fp32"},
        {**NORM_BLOCKS, "SILU": True, "LARGEST": 127.0, "ROUND": True},
    ),
}


def test_the_contract_in_the_interpreter():
    here = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(here / "triton_interpreted.py")],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("name", KERNELS)
def test_it_compiles_without_spills(name, capability):
    kernel, types, constants = KERNELS[name]
    shared, resources = compiled(kernel, POINTERS | types, constants, capability)
    assert shared <= 16 * 1024
    assert resources["STACK"] == 0, "registers spill to the stack"
    assert resources["REG"] <= 128, "fewer than four blocks of 128 threads fit a multiprocessor"


DIMS = (16, 40, 64, 80, 128, 160, 256)


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize(
    ("dim", "keys", "tiles", "paired"),
    [
        *((dim, 4096, attention.tiles(dim, 4096), False) for dim in DIMS),
        *((dim, 77, attention.tiles(dim, 77), False) for dim in (40, 80, 160)),
        *((dim, 4096, tiles, True) for dim in DIMS for tiles in attention.paired_tiles(dim)),
    ],
    ids=str,
)
def test_attention_compiles_without_spills(dim, keys, tiles, paired, capability):
    shared, resources = compiled(
        attention.attention_kernel,
        {**dict.fromkeys(("q", "k", "v", "out"), "*bf16"), "source_of_row": "*i64", "scale": "fp32"},
        attention.constants(dim, dim, keys, tiles, 8, 4 if paired else 0) | ({} if paired else {"source_of_row": None}),
        capability,
        aligned=("q", "k", "v", "out"),
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    assert shared <= 160 * 1024, "not one block fits a multiprocessor of the smallest chip"
    assert resources["STACK"] == 0, "registers spill to the stack"


def test_a_head_dim_is_padded_to_a_power_of_two():
    assert [attention.channels(dim) for dim in (5, 16, 40, 64, 80, 160)] == [16, 16, 64, 64, 128, 256]


EIGHT_BITS = {torch.int8: "*i8", torch.float8_e4m3fn: "*fp8e4nv"}


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, *EIGHT_BITS], ids=str)
def test_products_compile_without_spills(dtype, gated, capability):
    if capability < 89 and dtype == torch.float8_e4m3fn:
        pytest.skip("this chip multiplies no e4m3")
    operand = EIGHT_BITS.get(dtype, "*bf16")
    types = {"x": operand, "weight": operand, "bias": "*bf16", "out": "*bf16"}
    for tiles in {matmul.tiles(rows, columns, dtype.itemsize, gated) for rows, columns in PRODUCTS}:
        shared, resources = compiled(
            matmul.matmul_kernel,
            types | dict.fromkeys(("x_scale", "weight_scale"), "*fp32"),
            matmul.constants(tiles, 1280, dtype, has_bias=True, gated=gated),
            capability,
            aligned=("x", "weight", "bias", "out", "columns", "depth"),
            num_warps=tiles.warps,
            num_stages=3,
        )
        assert shared <= 160 * 1024 and resources["STACK"] == 0, tiles


PRODUCTS = [(tokens * rows, width) for tokens, width in ((4096, 320), (1024, 640), (64, 1280)) for rows in (1, 3)]


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("dtype", EIGHT_BITS, ids=str)
def test_convolutions_compile_without_spills(dtype, capability):
    if capability < 89 and dtype == torch.float8_e4m3fn:
        pytest.skip("this chip multiplies no e4m3")
    operand = EIGHT_BITS[dtype]
    types = {"x": operand, "weight": operand} | dict.fromkeys(("bias", "residual", "out"), "*bf16")
    shapes = [(side * side * rows, width, depth) for side, width, depth in CONVOLUTIONS for rows in (1, 3)]
    for tiles in {quantized_conv2d.tiles(*shape) for shape in shapes}:
        shared, resources = compiled(
            quantized_conv2d.conv_kernel,
            types | {"scale": "*fp32"},
            quantized_conv2d.constants(tiles, tiles.depth, dtype, has_bias=True, has_residual=True),
            capability,
            aligned=("x", "weight", "bias", "residual", "out", "columns", "channels"),
            num_warps=tiles.warps,
            num_stages=3,
        )
        assert shared <= 160 * 1024 and resources["STACK"] == 0, tiles


# pixels a side, and channels written and read
CONVOLUTIONS = [(64, 320, 320), (64, 320, 960), (32, 640, 1920), (16, 1280, 2560), (8, 1280, 1280), (8, 100, 100)]


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize(("width", "kind"), [(320, "*bf16"), (1280, "*i8"), (5120, "*i8"), (640, "*fp8e4nv")])
def test_norms_and_quantization_compile_without_spills(width, kind, capability):
    if capability < 89 and kind == "*fp8e4nv":
        pytest.skip("this chip has no e4m3")
    _, resources = compiled(
        layer_norm.rows_kernel,
        {**dict.fromkeys(("x", "residual", "weight", "bias", "summed"), "*bf16"), "normed": kind, "scale": "*fp32"}
        | {"eps": "fp32"},
        layer_norm.blocks(width)
        | {"LARGEST": 0.0 if kind == "*bf16" else 127.0, "ROUND": kind == "*i8", "NORM": True, "HAS_RESIDUAL": True},
        capability,
        aligned=("x", "residual", "weight", "bias", "summed", "normed", "width"),
        num_warps=layer_norm.warps(width),
    )
    assert resources["STACK"] == 0, "registers spill to the stack"
    assert resources["REG"] <= 128


def compiled(kernel, types, constants, capability, aligned=(), **options):
    """Bytes of shared memory and {"REG", "STACK", ...} of a kernel compiled for a chip."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    source = ASTSource(
        kernel,
        signature,
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return binary.metadata.shared, registers_and_stack(binary.asm["cubin"])


def registers_and_stack(cubin):
    """{"REG", "STACK", ...} as cuobjdump lists them."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        pytest.skip("this triton carries no cuobjdump")
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"ip2p_fast_{os.getpid()}.cubin"
    try:
        path.write_bytes(cubin)
        listing = subprocess.run([tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True)
    finally:
        path.unlink(missing_ok=True)
    pairs = [word.split(":") for word in listing.stdout.split() if ":" in word]
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
