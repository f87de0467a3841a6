"""What runs a guided step. The loop and all above it know this interface and numpy; tensors stay behind it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from ..bundle import MANIFEST, is_bundle
from ..checkpoints import SHIPPED
from ..errors import BadInput, ModelError
from ..guidance import RowPlan
from ..samplers import NoiseSchedule
from ..sharing import SharingPlan
from ..tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelInfo:
    """What the loop and the editor need to know of a loaded model.

    path           the folder, file or hub id it came from
    vae_scale      pixels a latent, along a side
    size_multiple  sides of a picture are multiples of this
    defaults       the model's own text_guidance, image_guidance, steps, size (longer side in pixels), sampler
    """

    path: str
    schedule: NoiseSchedule
    latent_channels: int
    vae_scale: int
    size_multiple: int
    defaults: Mapping[str, Any]


@dataclass(frozen=True)
class EditStart:
    """One edit as a backend takes it in.

    image   [H, W, 3] uint8, or None for a model that takes no picture
    tokens  [2, 77] int64          null (or negative) text, instruction
    noise   [C, H/f, W/f] float32  unit normal
    scale                          latents start as scale * noise
    mask    [H/f, W/f] float32 or None  1 where the edit may change the picture, 0 where it may not
    """

    image: np.ndarray | None
    tokens: np.ndarray
    noise: np.ndarray
    scale: float
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class StepPlan:
    """One step of E edits of one size.

    edits         the keys given to `start`
    rows          the R rows to evaluate
    timesteps     [E] float32
    coefficients  [E, 7] float32          a, b0, b1, b2, c, p, q of `samplers`
    noise         [E, C, H/f, W/f] float32, zeros where c is 0
    levels        [E, 2] float32          (alpha, sigma) of the latents after the step
    max_rows      most rows evaluated at once, or None
    sharing       which rows use other rows' attention maps, or None
    """

    edits: tuple[int, ...]
    rows: RowPlan
    timesteps: np.ndarray
    coefficients: np.ndarray
    noise: np.ndarray
    levels: np.ndarray
    max_rows: int | None = None
    sharing: SharingPlan | None = None


class Backend(Protocol):
    """Holds the edits in flight by key: latents, sampler history, image latents, text keys and values."""

    name: str
    device: str
    dtype: str
    info: ModelInfo

    def start(self, edits: Mapping[int, EditStart]) -> None:
        """Encodes pictures and texts, and puts the edits in flight."""

    def step(self, plan: StepPlan) -> None:
        """Moves the plan's edits on by one step."""

    def preview(self, edit: int) -> np.ndarray:
        """The present prediction of the finished picture, [H, W, 3] uint8. After at least one step."""

    def finish(self, edit: int) -> np.ndarray:
        """Decodes the latents, [H, W, 3] uint8. The edit stays until `drop`."""

    def latents(self, edit: int) -> np.ndarray:
        """The present latents, [C, H/f, W/f] float32."""

    def synchronize(self) -> None:
        """Waits for the device, so that a clock read after it is true."""

    def drop(self, edits: Sequence[int]) -> None:
        """Forgets the edits."""


# name -> module with `load(model, device, dtype) -> (Backend, Tokenizer)`
BACKENDS = {"torch": ".torch_backend", "onnx": ".onnx_backend"}


def loader(name: str) -> Callable[..., Any]:
    """The `load(model, device, dtype)` of a backend by name; "auto" is onnx for an exported bundle, torch for all else.

    Raises BadInput for an unknown name and MissingExtra where the backend's packages are absent ("auto" does so when it
    loads). The function itself raises ModelError for a model that another backend runs.
    """
    if name != "auto" and name not in BACKENDS:
        raise BadInput(f"unknown backend {name!r}: choose auto or one of {', '.join(BACKENDS)}")
    if name != "auto":
        importlib.import_module(BACKENDS[name], __name__)
    return partial(_load, name)


def _load(name: str, model: Any, device: str = "auto", dtype: str = "auto") -> tuple[Backend, Tokenizer]:
    exported = is_bundle(model) and str(model) not in SHIPPED
    if name == "torch" and exported:
        raise ModelError(f"{model} is an exported bundle, which the torch backend cannot run: choose auto or onnx")
    if name == "onnx" and not exported:
        raise ModelError(
            f"{model} is no exported bundle, it has no {MANIFEST}: choose backend auto or torch, or make a bundle of "
            "it with ip2p-fast export"
        )
    chosen = ("onnx" if exported else "torch") if name == "auto" else name
    return importlib.import_module(BACKENDS[chosen], __name__).load(model, device=device, dtype=dtype)
