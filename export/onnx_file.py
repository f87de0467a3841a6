"""A graph to an ONNX file, and what is checked of it: valid, typed throughout, and as dynamic as it was asked."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ip2p_fast import kernels
from ip2p_fast.bundle import TensorSpec
from ip2p_fast.errors import MissingExtra, ModelError

from .graphs import TracedGraph

try:
    import onnx
    import onnx_ir
    import onnxscript  # noqa: F401  # what torch.onnx.export writes its graphs with
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    from .stored_weights import StoredWeights
except ModuleNotFoundError as error:
    raise MissingExtra("exporting", "export") from error

import torch

OPSET = 20
"""The first with GELU as one operation, and no higher, so that older runtimes read it."""
LARGEST = 64_000_000
"""Bytes of a graph without the weights in other files: one protobuf file can hold 2 GiB, ours need a few MB."""


def write_onnx(graph: TracedGraph, path: Path, weights: StoredWeights) -> tuple[str, ...]:
    """Traces the graph and writes it to `path`, beside the files of `weights`, which its initialisers point into.

    Returns the files that they point into.

    Raises:
        ModelError: the graph cannot be traced, the file is not valid, an axis that should vary is fixed in it, or it is
            too large, as its weights are not in the files.
    """
    with torch.no_grad(), kernels.use("reference"), _quiet():
        program = _traced(graph)
        ClearMetadataAndDocStringPass()(program.model)  # source lines and paths of the machine that traced it
        files = weights.point(program.model)
        inside = sum(
            value.const_value.nbytes
            for value in program.model.graph.initializers.values()
            if value.const_value is not None and not isinstance(value.const_value, onnx_ir.ExternalTensor)
        )
        if inside > LARGEST:
            raise ModelError(
                f"{graph.name} has {inside} bytes of weights that are in none of the model's files, {LARGEST} can be"
            )
        onnx_ir.save(program.model, path)
    check(graph.name, path, graph.inputs, graph.outputs)
    return files


def versions(path: Path) -> dict[str, int]:
    """The opset and IR version of an ONNX file."""
    model = onnx.load(path, load_external_data=False)
    return {"opset": next(entry.version for entry in model.opset_import if not entry.domain), "ir": model.ir_version}


def _traced(graph: TracedGraph) -> Any:
    try:
        return torch.onnx.export(
            graph.module,
            tuple(_example(spec, graph.example) for spec in graph.inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=_dynamic_axes(graph),
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ModelError(f"{graph.name} cannot be traced: {reason}") from error


def _example(spec: TensorSpec, sizes: Mapping[str, int]) -> torch.Tensor:
    shape = [sizes[side] if isinstance(side, str) else side for side in spec.shape]
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def _dynamic_axes(graph: TracedGraph) -> tuple[dict[int, str], ...]:
    return tuple(
        {i: side for i, side in enumerate(spec.shape) if isinstance(side, str)} for spec in graph.inputs.values()
    )


def check(name: str, path: Path, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
    """Raises ModelError unless the file is valid, typed throughout, and has these inputs and outputs."""
    try:
        onnx.checker.check_model(str(path), full_check=True)  # shape inference included; by path, as it may be > 2 GiB
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{name} did not become valid ONNX: {' '.join(str(error).split())[:200]}") from None
    model = onnx.load(path, load_external_data=False)
    for values, specs in ((model.graph.input, inputs), (model.graph.output, outputs)):
        written = {value.name: _spec(value) for value in values}
        for value_name, spec in specs.items():
            if not _agree(written.get(value_name), spec):
                raise ModelError(f"{name}: {value_name} became {written.get(value_name)}, {spec} was asked for")


def _spec(value: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    sides = tensor.shape.dim
    return TensorSpec(dtype, tuple(side.dim_value if side.HasField("dim_value") else side.dim_param for side in sides))


def _agree(written: TensorSpec | None, spec: TensorSpec) -> bool:
    """Fixed sides are the same, varying ones vary; their letters may differ (an output's H is 8*h)."""
    if written is None or written.dtype != spec.dtype or len(written.shape) != len(spec.shape):
        return False
    return all(
        isinstance(ours, str) if isinstance(asked, str) else ours == asked
        for ours, asked in zip(written.shape, spec.shape, strict=True)
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on what is not installed and on axes of one name."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
