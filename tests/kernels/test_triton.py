"""The Triton kernels without a GPU: their contract in the interpreter, and their compilation for three chips."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from ip2p_fast.kernels.triton_kernels import group_norm_silu, guided_step, paired_attention  # noqa: E402

FLOATS = ("x", "history", "coefficients", "noise", "weights", "partial", "affine", "weight", "bias", "x_next")
POINTERS = {name: "*fp32" for name in (*FLOATS, "history_next", "shift")} | {"row_start": "*i64"}
NORM_BLOCKS = {"BLOCK_PIXELS": 16, "BLOCK_CHANNELS": 128}
KERNELS = {
    "guided_step": (guided_step.guided_step_kernel, {"eps": "*bf16"}, {"BLOCK": guided_step.BLOCK}),
    "measure": (group_norm_silu.measure_kernel, {"x": "*bf16"}, NORM_BLOCKS),
    "combine": (
        group_norm_silu.combine_kernel,
        {"eps": "fp32"},
        {"SLAB_PIXELS": 16, "BLOCK_SLABS": 16, "BLOCK_CHANNELS": 64, "HAS_SHIFT": True},
    ),
    "normalise": (group_norm_silu.normalise_kernel, {"x": "*bf16", "y": "*bf16"}, {**NORM_BLOCKS, "SILU": True}),
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


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("width", [16, 64, 128, 256])
def test_paired_attention_compiles_without_spills(width, capability):
    queries, keys = paired_attention.blocks(width)
    shared, resources = compiled(
        paired_attention.paired_attention_kernel,
        {**dict.fromkeys(("q", "k", "v", "out"), "*bf16"), "source_of_row": "*i64", "scale": "fp32"},
        {"ROWS": 4, "WIDTH": width, "BLOCK_QUERIES": queries, "BLOCK_KEYS": keys},
        capability,
        # as the launcher finds them: tokens of a multiple of 16 channels, next to each other
        aligned=(
            "q",
            "k",
            "v",
            "out",
            *(f"{x}_{y}" for x in "qk" for y in ("map", "head", "token")),
            "v_row",
            "v_head",
        ),
        num_warps=paired_attention.WARPS,
    )
    assert shared <= 96 * 1024, "no two blocks fit a multiprocessor"
    assert resources["STACK"] == 0, "registers spill to the stack"


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
