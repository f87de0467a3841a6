"""OpenVINO used plainly: diffusers' UNet converted by OpenVINO's own converter, compiled for one shape at a time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .plain_unet import example_inputs, load_unet

FILE = "unet.xml"
_ANY = -1


def convert(unet: Any, rows: int = _ANY, latents: int = _ANY) -> Any:
    """An OpenVINO model of a UNet, for `rows` rows of latents x latents, or for any."""
    import openvino

    channels, width = unet.config.in_channels, unet.config.cross_attention_dim
    shapes = ((rows, channels, latents, latents), (1,), (rows, 77, width))
    sample, timestep, texts = example_inputs(unet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about checks of shapes
        return openvino.convert_model(
            unet,
            example_input=(sample, timestep.view(1), texts),
            input=[openvino.PartialShape(list(shape)) for shape in shapes],
        )


def write(model: str, folder: Path) -> None:
    """Converts the UNet of a model, for any shape and in float32, to FILE in `folder`."""
    import openvino

    openvino.save_model(convert(load_unet(model)), folder / FILE, compress_to_fp16=False)


def read(folder: Path) -> Any:
    import openvino

    return openvino.Core().read_model(folder / FILE)


class OpenVinoUNet:
    """What a diffusers UNet can be replaced by, compiled anew when the shape changes. dtype: bfloat16 or float32."""

    def __init__(self, model: Any, dtype: str) -> None:
        self._model, self._dtype = model, dtype
        self._request: Any = None
        self._shapes: list[list[int]] = []

    def __call__(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        inputs = [sample.float(), timestep.float().view(1), encoder_hidden_states.float()]
        if (shapes := [list(tensor.shape) for tensor in inputs]) != self._shapes:
            self._shapes, self._request = shapes, self._compiled(shapes)
        self._request.infer([tensor.contiguous().numpy() for tensor in inputs], share_inputs=True)
        return (torch.from_numpy(self._request.get_output_tensor(0).data.copy()).to(sample.dtype),)

    def _compiled(self, shapes: Sequence[Sequence[int]]) -> Any:
        import openvino

        self._request = None  # its memory goes before the next one's is taken
        fixed = self._model.clone()
        fixed.reshape({i: openvino.PartialShape(list(shape)) for i, shape in enumerate(shapes)})
        precision = {"bfloat16": "bf16", "float32": "f32"}[self._dtype]
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        return openvino.Core().compile_model(fixed, "CPU", options).create_infer_request()
