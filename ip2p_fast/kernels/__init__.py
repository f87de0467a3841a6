"""The fused operators, and the one place where an implementation is chosen.

Each function calls a `torch.ops.ip2p_fast` operator. Which code runs is
the dispatcher's choice by device: the C++ extension on CPU and CUDA where it is built, Triton on CUDA where it is not,
`reference.py` elsewhere. `use("reference")` sends every later call to the reference instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ip2p_fast.errors import BadInput, MissingExtra

try:
    import torch
except ModuleNotFoundError as error:
    raise MissingExtra("ip2p_fast.kernels", "torch") from error

from torch import Tensor

from ip2p_fast.kernels import implementations, reference, schemas

__all__ = [
    "attention",
    "fuses_transformers",
    "geglu",
    "group_norm_silu",
    "guided_step",
    "layer_norm",
    "paired_attention",
    "quantize_rows",
    "quantized_conv2d",
    "quantized_group_norm_silu",
    "quantized_linear",
    "status",
    "use",
]

schemas.define()
_LOADED = implementations.load()
_OPERATORS = {name: getattr(torch.ops.ip2p_fast, name).default for name in schemas.SCHEMAS}
_mode = "auto"


def guided_step(
    eps: Tensor, row_start: Tensor, weights: Tensor, x: Tensor, history: Tensor, coefficients: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum each edit's weighted rows and take one step of its sampler, in one pass over memory.

    e = sum over the edit's rows of weights[r] eps[r]; d = p x + q e; x' = a x + b0 d + b1 d1 + b2 d2 + c n.
    A weight or coefficient that is exactly 0 leaves its term out: NaN, infinity or unset memory behind it stays there.

    Args:
        eps: [R, C, h, w], any floating dtype and strides: the UNet's predictions (eps or v), one a row.
        row_start: [E + 1] int64 on x's device; rows row_start[e] to row_start[e + 1] belong to edit e.
        weights: [R] float32, the guidance weight of each row.
        x: [E, C, h, w] float32, latents in unit-variance form.
        history: [E, 2, C, h, w] float32, the guided clean predictions of the last step (d1) and the one before (d2).
        coefficients: [E, 7] float32, a, b0, b1, b2, c, p, q of each edit's sampler table at its step.
        noise: [E, C, h, w] float32, unit normal.
    Returns:
        x' [E, C, h, w] and the next history (d, d1) [E, 2, C, h, w], both float32 and contiguous.
        float64 throughout is accepted too and computed by the reference.
    Raises:
        BadInput: shapes, dtypes, devices or row_start do not fit together.
    """
    return _call("guided_step", (eps, row_start, weights, x, history, coefficients, noise))


def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float = 1e-5,
    shift: Tensor | None = None,
    silu: bool = True,
) -> Tensor:
    """SiLU(GroupNorm(x + shift)), statistics in float32 whatever the dtype of x.

    Args:
        x: [N, C, H, W], float32, bfloat16 or float16, contiguous or channels_last (the output keeps the format).
        weight, bias: [C], the affine parameters.
        groups: a divisor of C.
        eps: added to the variance.
        shift: [N, C] or None, added to x first (a residual block's time embedding).
        silu: False leaves the activation out.
    Returns:
        [N, C, H, W] in the dtype of x.
    Raises:
        BadInput: shapes, dtypes or devices do not fit together, or C is not a multiple of groups.
    """
    return _call("group_norm_silu", (x, weight, bias, groups, eps, shift, silu))


def quantized_group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    scale: Tensor,
    dtype: torch.dtype,
    eps: float = 1e-5,
    shift: Tensor | None = None,
) -> Tensor:
    """SiLU(GroupNorm(x + shift)) / scale in 8 bits, for `quantized_conv2d`.

    Args:
        x, weight, bias, groups, eps, shift: as `group_norm_silu`.
        scale: [C], float32, above 0: what 1 stands for in each channel.
        dtype: torch.int8 or torch.float8_e4m3fn.
    Returns:
        [N, C, H, W] in `dtype`, channels_last, rounded to nearest even; what exceeds 127 (int8) or 448 (fp8) is cut.
    Raises:
        BadInput: shapes, dtypes or devices do not fit together, or C is not a multiple of groups.
    """
    return _call("quantized_group_norm_silu", (x, weight, bias, groups, scale, dtype, eps, shift))


def quantized_conv2d(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """conv2d(x, weight) scale + bias + residual of 8-bit numbers, 3x3, stride 1, zeros around the picture.

    Args:
        x: [N, C, H, W], int8 or float8_e4m3fn; channels_last as `quantized_group_norm_silu` leaves it.
        weight: [O, 3, 3, C], of the dtype of x. scale: [O] float32, of an output's sum.
        dtype: of the result, float32, bfloat16 or float16.
        bias: [O], or None. residual: [N, O, H, W] in `dtype`, or None.
    Returns:
        [N, O, H, W] in `dtype`, channels_last, rounded once.
    Raises:
        BadInput: shapes, dtypes or devices do not fit together.
    """
    return _call("quantized_conv2d", (x, weight, scale, dtype, bias, residual))


def paired_attention(q: Tensor, k: Tensor, v: Tensor, source_of_row: Tensor) -> Tensor:
    """Attention in which rows share maps: row r is softmax(q[s] k[s]^T / sqrt(d)) v[r] with s = source_of_row[r].

    A map is computed once for all the rows that use it, and never stored: Prompt-to-Prompt's injection of the source
    picture's self-attention (Hertz et al. 2022, section 3.2) at less than the cost of plain attention.

    Args:
        q: [S, heads, N, d], float32, bfloat16 or float16: the queries of the S maps. S may be the number of rows.
        k: [S, heads, M, d], their keys.
        v: [R, heads, M, dv], the values of the R rows.
        source_of_row: [R] int64 on the device of v, the map that each row uses, 0 to S - 1.
    Returns:
        [R, heads, N, dv], contiguous, in the dtype of v. float64 is accepted too and computed by the reference.
    Raises:
        BadInput: shapes, dtypes, devices or source_of_row do not fit together.
    """
    return _call("paired_attention", (q, k, v, source_of_row))


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, for UNets on a GPU: of few keys (a text's) or many, at head dims of any size.

    Args:
        q: [R, heads, N, d]; k: [R, heads, M, d]; v: [R, heads, M, dv]; of one dtype, float32, bfloat16 or float16.
    Returns:
        [R, heads, N, dv], a view of contiguous [R, N, heads, dv], so that heads are joined without a copy.
    Raises:
        BadInput: shapes, dtypes or devices do not fit together.
    """
    return _call("attention", (q, k, v))


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    quantize: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm(x + residual), and with `quantize` its rows in 8 bits as `quantize_rows` makes them.

    Args:
        x: [..., C], float32, bfloat16 or float16. weight, bias: [C].
        residual: as x, or None.
        quantize: torch.int8 or torch.float8_e4m3fn, or None.
    Returns:
        The norm [..., C], in the dtype of x or `quantize`; its scales [...] float32, empty unless quantized; and
        x + residual rounded to the dtype of x, which is what the norm is of, empty where there is no residual.
    Raises:
        BadInput: shapes, dtypes or devices do not fit together.
    """
    return _call("layer_norm", (x, weight, bias, eps, residual, quantize))


def geglu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(x W1^T + b1) gelu(x W2^T + b2), gelu with the error function; Shazeer 2020.

    Args:
        x: [..., K]; weight: [2 N, K], W1 above W2; bias: [2 N]; of one dtype, float32, bfloat16 or float16.
    Returns:
        [..., N] in the dtype of x.
    Raises:
        BadInput: shapes, dtypes or devices do not fit together.
    """
    return _call("geglu", (x, weight, bias))


def quantize_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """8-bit numbers and a scale a row, x = number x scale: the row's largest magnitude becomes 127 (int8) or 448 (fp8).

    Args:
        x: [..., C], float32, bfloat16 or float16. dtype: torch.int8 or torch.float8_e4m3fn.
    Returns:
        [..., C] in `dtype`, rounded to nearest even, and [...] float32. A row of zeros has scale 1.
    Raises:
        BadInput: another dtype, or no rows.
    """
    return _call("quantize_rows", (x, dtype))


def quantized_linear(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    gated: bool = False,
) -> Tensor:
    """x W^T + b of 8-bit numbers: the sums are exact for int8 and float32 for fp8, and scaled when they are complete.

    Args:
        x: [..., K] and x_scale: [...] float32; weight: [N, K] and weight_scale: [N] float32, of `quantize_rows`.
        bias: [N], or None.
        dtype: of the result, float32, bfloat16 or float16.
        gated: N is twice as large, and the second half gates the first as in `geglu`.
    Returns:
        [..., N], or half of it where gated.
    Raises:
        BadInput: shapes, dtypes or devices do not fit together.
    """
    return _call("quantized_linear", (x, x_scale, weight, weight_scale, bias, dtype, gated))


def fuses_transformers(x: Tensor) -> bool:
    """Whether a transformer's operators have kernels where x is; elsewhere PyTorch's layers beat the reference."""
    return x.is_cuda and _mode == "auto" and "attention" in _LOADED.triton and not torch.is_grad_enabled()


def use(mode: str) -> AbstractContextManager[None]:
    """Choose the implementation of later calls: "auto" (the fastest built) or "reference".

    `use("reference")` alone holds until the next call; `with use("reference"):` ends with its block. The choice is the
    process's, not a thread's.

    Raises:
        BadInput: another word.
    """
    global _mode
    if mode not in ("auto", "reference"):
        raise BadInput(f"kernels.use: unknown mode {mode!r}; choose auto or reference")
    previous, _mode = _mode, mode
    return _restoring(previous)


def status() -> dict[str, Any]:
    """What is built and what runs: {"extension", "why", "isa", "mode", "kernels": {name: {"cpu": .., "cuda": ..}}}."""
    return {**_LOADED.describe(), "mode": _mode}


@contextmanager
def _restoring(previous: str) -> Iterator[None]:
    global _mode
    try:
        yield
    finally:
        _mode = previous


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    if _plain(arguments):
        return implementations.checked(name, getattr(reference, name))(*arguments)
    try:
        return _OPERATORS[name](*arguments)
    except RuntimeError:
        # every implementation checks its arguments; this says the same in better words, and costs a good call nothing
        schemas.CHECKS[name](*arguments)
        raise


def _plain(arguments: tuple[Any, ...]) -> bool:
    """Whether the call belongs to the reference: asked for, float64, or with a gradient to keep."""
    if _mode == "reference":
        return True
    training = torch.is_grad_enabled()
    for value in arguments:
        if isinstance(value, Tensor) and (value.dtype == torch.float64 or (training and value.requires_grad)):
            return True
    return False
