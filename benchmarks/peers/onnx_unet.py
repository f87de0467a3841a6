"""ONNX Runtime used plainly: diffusers' UNet exported by PyTorch's own exporter, in the pipeline's UNet's place."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .plain_unet import INPUTS, example_inputs, load_unet

FILE = "unet.onnx"
OUTPUT = "prediction"
_OPSET = 17


def write(model: str, folder: Path) -> None:
    """Exports the model's UNet in float32, for any number of rows and any size, to FILE in `folder`.

    By the exporter that Hugging Face's optimum uses; the newer one cannot trace this UNet.
    """
    unet = load_unet(model)
    sides = {0: "rows", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about checks of shapes, and that it is the older one
        torch.onnx.export(
            unet,
            (*example_inputs(unet), {"return_dict": False}),
            str(folder / FILE),  # of a Path the exporter takes none of the weights out that exceed protobuf's 2 GB
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes={INPUTS[0]: sides, INPUTS[2]: {0: "rows"}, OUTPUT: sides},
            opset_version=_OPSET,
            dynamo=False,
        )


class OnnxUNet:
    """What a diffusers UNet's `forward` can be replaced by. providers: ONNX Runtime's, as CPUExecutionProvider."""

    def __init__(self, folder: Path, providers: list[str]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session: Any = onnxruntime.InferenceSession(folder / FILE, options, providers=providers)

    def __call__(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        values = (sample, timestep, encoder_hidden_states)
        inputs = {name: value.float().cpu().numpy() for name, value in zip(INPUTS, values, strict=True)}
        return (torch.from_numpy(self.session.run(None, inputs)[0]).to(sample.device, sample.dtype),)
