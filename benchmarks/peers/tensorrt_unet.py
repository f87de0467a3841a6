"""TensorRT used plainly: an engine of diffusers' UNet as ONNX, built on the GPU that is there, on PyTorch's tensors.

It has not been run: that needs a GPU and TensorRT.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ip2p_fast.backends.tensorrt_library import LOG, trt
from ip2p_fast.errors import ModelError

from .onnx_unet import OUTPUT
from .plain_unet import INPUTS


class TensorRtUNet:
    """What a diffusers UNet's `forward` can be replaced by. Built and given memory anew when the shape changes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._shapes: tuple[torch.Size, ...] = ()
        self._context: Any = None
        self._engine: Any = None
        self._runtime = trt.Runtime(LOG)

    def __call__(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        values = [value.float().contiguous() for value in (sample, timestep.to(sample.device), encoder_hidden_states)]
        shapes = tuple(value.shape for value in values)
        if shapes != self._shapes:
            plan = build(self._file, shapes)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            self._context, self._shapes = self._engine.create_execution_context(), shapes
        for name, value in zip(INPUTS, values, strict=True):
            self._context.set_input_shape(name, tuple(value.shape))
            self._context.set_tensor_address(name, value.data_ptr())
        out = torch.empty(tuple(self._context.get_tensor_shape(OUTPUT)), device=sample.device)
        self._context.set_tensor_address(OUTPUT, out.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise ModelError(f"TensorRT could not run {self._file}: {LOG.first()}")
        return (out.to(sample.dtype),)


def build(file: Path, shapes: tuple[torch.Size, ...]) -> Any:
    """A serialised engine for these shapes of the inputs, by the library's defaults. Raises ModelError."""
    LOG.clear()
    builder = trt.Builder(LOG)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, LOG)
    if not parser.parse_from_file(str(file)):
        raise ModelError(f"{file} cannot be parsed: {parser.get_error(0).desc() if parser.num_errors else LOG.first()}")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for name, shape in zip(INPUTS, shapes, strict=True):
        profile.set_shape(name, *(tuple(shape),) * 3)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    del parser  # not before: the network's weights are the parser's
    if plan is None:
        raise ModelError(f"{file} cannot be built: {LOG.first()}")
    return plan
