"""What runs a guided step. The loop and all above it know this interface and numpy; tensors stay behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..guidance import RowPlan
from ..samplers import NoiseSchedule
from ..savings import ReusePlan
from ..sharing import SharingPlan


@dataclass(frozen=True)
class ModelInfo:
    """What the loop and the editor need to know of a loaded model.

    path           the folder, file or hub id it came from
    vae_scale      pixels a latent, along a side
    size_multiple  sides of a picture are multiples of this
    defaults       the model's own text_guidance, image_guidance, steps, size (longer side in pixels), sampler
    distilled      it is told the guidance scales and needs one row an edit
    """

    path: str
    schedule: NoiseSchedule
    latent_channels: int
    vae_scale: int
    size_multiple: int
    defaults: Mapping[str, Any]
    distilled: bool = False


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
    reuse         what edits take from their own earlier steps, or None
    """

    edits: tuple[int, ...]
    rows: RowPlan
    timesteps: np.ndarray
    coefficients: np.ndarray
    noise: np.ndarray
    levels: np.ndarray
    max_rows: int | None = None
    sharing: SharingPlan | None = None
    reuse: ReusePlan | None = None


class Backend(Protocol):
    """Holds the edits in flight by key: latents, sampler history, image latents, text keys and values.

    reuses_deep      whether a row may take the deep features of an earlier step (`savings`)
    compile_seconds  spent so far in a compiler while edits ran
    """

    name: str
    device: str
    dtype: str
    info: ModelInfo
    reuses_deep: bool

    @property
    def compile_seconds(self) -> float: ...

    def start(self, edits: Mapping[int, EditStart]) -> None:
        """Encodes pictures and texts, and puts the edits in flight."""

    def step(self, plan: StepPlan) -> None:
        """Moves the plan's edits on by one step."""

    def preview(self, edit: int) -> np.ndarray:
        """The present prediction of the finished picture, [H, W, 3] uint8. After at least one step."""

    def finishing(self, edit: int) -> Callable[[], np.ndarray]:
        """Begins to decode the latents, and returns what waits for the picture, [H, W, 3] uint8. The edit stays until
        `drop`, which may come before the picture."""

    def latents(self, edit: int) -> np.ndarray:
        """The present latents, [C, H/f, W/f] float32."""

    def synchronize(self) -> None:
        """Waits for the device, so that a clock read after it is true."""

    def drop(self, edits: Sequence[int]) -> None:
        """Forgets the edits."""

    def settle(self) -> None:
        """The warm-up is over: shapes that did not come in it run as they can, and no step waits for a compiler."""
