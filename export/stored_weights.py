"""Weights lie in safetensors files and are there once: the graphs' initialisers point into them.

A graph that computes in float32 from weights kept in a half format reads them through a Cast, and a linear layer's
through a Transpose where the exporter has folded one; both are constants, which every runtime folds when it loads.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import replace_all_uses_with

SMALLEST = 1024
"""Elements below which an initialiser stays in its graph: constants and small vectors are no burden there."""
_DTYPES = {"F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16), "F32": np.dtype(np.float32)}
_IR = {
    np.dtype(np.float16): ir.DataType.FLOAT16,
    np.dtype(ml_dtypes.bfloat16): ir.DataType.BFLOAT16,
    np.dtype(np.float32): ir.DataType.FLOAT,
}


@dataclass(frozen=True)
class _Place:
    """Where a tensor's bytes are: in `file`, from `offset`."""

    name: str
    file: str
    offset: int
    length: int
    dtype: np.dtype


class StoredWeights:
    """The tensors of safetensors files in a folder, by what is in them.

    files: paths from the folder. halves: endings of names of tensors whose first and second half may be asked for too.
    """

    def __init__(self, folder: Path, files: Sequence[str], halves: Sequence[str] = ()) -> None:
        self.folder = folder
        self._places: dict[bytes, _Place] = {}
        for file in files:
            for place, content in _tensors(folder, file):
                self._places.setdefault(_digest(place.dtype, content), place)
                if place.name.endswith(tuple(halves)):
                    half = place.length // 2
                    for i, part in enumerate((content[:half], content[half:])):
                        name, offset = f"{place.name}.{i}", place.offset + i * half
                        self._places.setdefault(
                            _digest(place.dtype, part), _Place(name, file, offset, half, place.dtype)
                        )

    def point(self, model: ir.Model) -> tuple[str, ...]:
        """Takes the place of every initialiser of the model that is in the files, to the last bit; returns which."""
        found: list[tuple[ir.Value, np.ndarray, _Place, bool]] = []
        for value in list(model.graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or tensor.size < SMALLEST or tensor.numpy().dtype not in _IR:
                continue
            if (match := self._find(tensor.numpy())) is not None:
                found.append((value, tensor.numpy(), *match))
                del model.graph.initializers[value.name]  # type: ignore[arg-type]
        nodes: list[ir.Node] = []
        reads: dict[Any, ir.Value] = {}
        for value, array, place, transposed in found:
            key = (place.name, array.shape, transposed, array.dtype)
            if key not in reads:
                reads[key] = self._reads(model.graph, place, array, transposed, nodes)
            replace_all_uses_with(value, reads[key])
        if nodes:
            model.graph.insert_before(model.graph[0], nodes)
        return tuple(sorted({place.file for _, _, place, _ in found}))

    def _find(self, array: np.ndarray) -> tuple[_Place, bool] | None:
        for transposed in (False, True) if array.ndim == 2 else (False,):
            laid = np.ascontiguousarray(array.T if transposed else array)
            for dtype in _DTYPES.values():
                with np.errstate(over="ignore"):
                    stored = laid.astype(dtype)
                place = self._places.get(_digest(dtype, stored.view(np.uint8).reshape(-1).data))
                if place is not None and np.array_equal(stored.astype(array.dtype), laid):
                    return place, transposed
        return None

    def _reads(
        self, graph: ir.Graph, place: _Place, array: np.ndarray, transposed: bool, nodes: list[ir.Node]
    ) -> ir.Value:
        """An initialiser for the place, with the nodes that make the array of it added to `nodes`."""
        shape, name = array.shape[::-1] if transposed else array.shape, place.name
        value = graph.initializers.get(name)
        if value is not None and value.shape != shape:
            name = f"{name}.{'x'.join(map(str, shape))}"  # the same bytes, read as another shape
            value = graph.initializers.get(name)
        if value is None:
            tensor = ir.ExternalTensor(
                place.file,
                place.offset,
                place.length,
                _IR[place.dtype],
                shape=ir.Shape(shape),
                name=name,
                base_dir=self.folder,
            )
            value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(shape), const_value=tensor)
            graph.register_initializer(value)
        steps: list[tuple[str, dict[str, Any]]] = []
        if place.dtype != array.dtype:
            steps.append(("Cast", {"to": _IR[array.dtype]}))
        if transposed:
            steps.append(("Transpose", {"perm": [1, 0]}))
        ending = "turned." if transposed else ""
        for operation, attributes in steps:
            node = ir.node(operation, [value], attributes=attributes, name=f"{name}.{ending}{operation.lower()}")
            (value,) = node.outputs
            value.name = node.name
            value.type = ir.TensorType(_IR[array.dtype])
            value.shape = ir.Shape(array.shape if operation == "Transpose" else shape)
            nodes.append(node)
        return value


def _tensors(folder: Path, file: str) -> Iterator[tuple[_Place, memoryview]]:
    """The file's header: 8 bytes of its length, then JSON with dtype, shape and place of each tensor."""
    content = np.memmap(folder / file, np.uint8, "r")
    (length,) = struct.unpack("<Q", content[:8].tobytes())
    header = json.loads(content[8 : 8 + length].tobytes())
    for name, facts in header.items():
        if name != "__metadata__" and facts["dtype"] in _DTYPES:
            first, last = (8 + length + end for end in facts["data_offsets"])
            place = _Place(name, file, first, last - first, _DTYPES[facts["dtype"]])
            yield place, content[first:last].data


def _digest(dtype: np.dtype, content: memoryview) -> bytes:
    return hashlib.sha256(content).digest() + dtype.name.encode()
