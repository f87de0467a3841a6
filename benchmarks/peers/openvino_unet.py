"""OpenVINO used plainly: diffusers' UNet converted by OpenVINO's own converter, for three rows of one size."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor


class OpenVinoUNet:
    """Stands in for a diffusers UNet in `DiffusersStep`. precision: OpenVINO's name, bf16 or f32."""

    def __init__(self, unet: Any, rows: int, latents: int, precision: str) -> None:
        import openvino

        shapes = ((rows, unet.config.in_channels, latents, latents), (1,), (rows, 77, unet.config.cross_attention_dim))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's, about checks of shapes
            model = openvino.convert_model(
                unet,
                example_input=tuple(torch.zeros(shape) for shape in shapes),
                input=[openvino.PartialShape(list(shape)) for shape in shapes],
            )
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        self.request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def __call__(
        self, latents: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, return_dict: bool
    ) -> tuple[Tensor]:
        inputs = [latents.float(), timestep.float().view(1), encoder_hidden_states.float()]
        self.request.infer([tensor.contiguous().numpy() for tensor in inputs], share_inputs=True)
        return (torch.from_numpy(self.request.get_output_tensor(0).data.copy()),)
