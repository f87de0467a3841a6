"""Options that every command with an engine behind an address has: `serve` and `app`."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Model: TypeAlias = Annotated[str, typer.Option(help="pocket, a hub id, a folder, a single file or a bundle.")]
Host: TypeAlias = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")]
Port: TypeAlias = Annotated[int, typer.Option(min=1, max=65535)]
Backend: TypeAlias = Annotated[str, typer.Option(help="auto, torch, onnx, openvino or tensorrt.")]
Device: TypeAlias = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype: TypeAlias = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
PolicyName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--policy",
        help="latency: edits join at once. throughput: they wait to join together. static: none joins others.",
    ),
]
MaxRows: TypeAlias = Annotated[int, typer.Option(help="Most UNet rows in flight: bounds memory.")]
MaxStepMs: TypeAlias = Annotated[
    float | None, typer.Option(help="Fewer rows, so that a step stays this short.", show_default="no limit")
]
LowMemory: TypeAlias = Annotated[
    bool, typer.Option("--low-memory", help="Rows one by one, the autoencoder in tiles: slower. Torch backend.")
]
MaxQueue: TypeAlias = Annotated[int, typer.Option(min=1, help="Edits that may wait.")]
