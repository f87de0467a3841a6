"""The public way in: pictures and instructions to edited pictures."""

from __future__ import annotations

import math
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .backends import Backend
from .backends.choice import loader
from .errors import BadInput, Cancelled
from .images import MAX_PIXELS, ImageSource, fit, load_image, load_mask, target_size
from .loop import LoopEdit, Progress, StepLoop
from .samplers import SamplerTable, sampler_table
from .savings import schedule
from .tokenizer import Tokenizer

# The paper's, where a model brings none of its own.
DEFAULTS: Mapping[str, Any] = {"text_guidance": 7.5, "image_guidance": 1.5, "steps": 20, "sampler": "euler_a"}
MAX_SEED = 2**63 - 1
MAX_GUIDANCE = 1000.0
# What an empty instruction asks for is the picture itself.
_FULL_GUIDANCE = (0.0, 1.0)
MAX_REFRESH = 1000
_WARM_UP_STEPS = 2


@dataclass(frozen=True)
class EditRequest:
    """One picture and what to do with it; None stands for the model's own default.

    image              path, bytes, PIL image or [H, W, 3] uint8
    instruction        what to change; empty returns the resized input
    text_guidance      s_T: higher follows the instruction more
    image_guidance     s_I: higher keeps the input more
    steps              1 to the length of the noise schedule
    sampler            euler_a, euler, ddim, dpmpp_2m or lcm
    seed               of image 0, image i takes seed + i; None draws one
    negative           what to avoid; takes the place of the null text
    mask               path, bytes, PIL image or array, fitted as the image: white may change, black may not
    num_images         pictures of this request
    size               longer side in pixels; the sides become multiples of the model's
    guidance_interval  the part of the steps, from 0 to 1, that is guided; the rest evaluate one row
    guidance_refresh   guided steps from one evaluation of all rows to the next; those between evaluate one and reuse
                       the guidance delta. 1 reuses nothing
    deep_refresh       steps from one evaluation of the UNet below its first level to the next; those between reuse its
                       features. 1 reuses nothing; torch backend only
    noise              [num_images, 1 + steps, C, h/f, w/f] float32 (or without the first axis), unit normal: the start,
                       then one a step, in place of the seed's
    """

    image: ImageSource
    instruction: str
    text_guidance: float | None = None
    image_guidance: float | None = None
    steps: int | None = None
    sampler: str | None = None
    seed: int | None = None
    negative: str = ""
    mask: ImageSource | None = None
    num_images: int = 1
    size: int | None = None
    guidance_interval: tuple[float, float] = _FULL_GUIDANCE
    guidance_refresh: int = 1
    deep_refresh: int = 1
    noise: np.ndarray | None = None


@dataclass(frozen=True)
class EditResult:
    """images, the seed of the first, seconds by stage (of the whole batch), UNet rows evaluated for this request.

    "compile" among the timings is the part of "denoise" that went to torch.compile, where that was asked for.
    Rows that were evaluated whole are row_evaluations; those that took deep features of an earlier step, and so
    evaluated the UNet's first level alone, are shallow_evaluations.
    latents [num_images, C, h, w] float32, as the loop left them; None for an empty instruction.
    """

    images: list[Image.Image]
    seed: int
    timings: dict[str, float]
    row_evaluations: int
    shallow_evaluations: int = 0
    latents: np.ndarray | None = None


class Editor:
    """Edits pictures by instruction. One thread at a time: a server keeps one StepLoop in a thread of its own."""

    def __init__(
        self, backend: Backend, tokenizer: Tokenizer, max_rows: int | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self.backend = backend
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.max_pixels = max_pixels

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "pocket",
        backend: str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        max_rows: int | None = None,
        max_pixels: int = MAX_PIXELS,
        low_memory: bool = False,
        compile: bool = False,
    ) -> Editor:
        """Loads "pocket", a hub id, a Hugging Face folder, a single file of the original, or an exported bundle.

        low_memory: rows one by one unless max_rows says otherwise, the autoencoder in tiles that overlap, the text
        encoder off the GPU; slower, and where tiles meet the picture differs a little. Torch backend only.

        compile: the UNet goes through torch.compile, at the first step of each batch and size of pictures; what that
        takes is "compile" in a result's timings, and `warm_up` does it beforehand. Torch backend only.

        Raises BadInput for an unknown backend, device or dtype, ModelError for a checkpoint that cannot be used.
        """
        if low_memory and backend not in ("auto", "torch"):
            raise BadInput(f"low_memory is for the torch backend, not {backend}: there, max_rows bounds memory")
        if compile and backend not in ("auto", "torch"):
            raise BadInput(f"compile is for the torch backend, not {backend}: an exported bundle is compiled already")
        load = loader("torch" if low_memory or compile else backend)
        if max_rows is not None:
            _whole("max_rows", max_rows, 1, 2**31)
        loaded, tokenizer = load(model, device=device, dtype=dtype, **({"compile": True} if compile else {}))
        if low_memory:
            loaded.save_memory()
        return cls(loaded, tokenizer, max_rows or (1 if low_memory else None), max_pixels)

    @classmethod
    def from_pipeline(cls, pipe: Any, device: str = "auto", dtype: str = "auto", max_rows: int | None = None) -> Editor:
        """Takes over a loaded diffusers pipeline, its LoRA fused and its textual inversion kept."""
        from .checkpoints import from_pipeline

        loaded, tokenizer = loader("torch")(from_pipeline(pipe), device=device, dtype=dtype)
        return cls(loaded, tokenizer, max_rows)

    @property
    def model_path(self) -> str:
        """The folder, file or hub id the model was loaded from."""
        return self.backend.info.path

    def warm_up(
        self, sizes: Sequence[tuple[int, int]] = (), num_images: Sequence[int] = (1,), **settings: Any
    ) -> dict[str, float]:
        """Makes the first edits of these sizes and numbers, which choose, compile and capture what later ones run.

        Args:
            sizes: (width, height) of pictures; none for the model's own.
            num_images: edits at once, one after the other for each size; the largest first saves memory on a GPU.
            settings: other fields of EditRequest, of which guidance decides the rows of a step.
        Returns:
            Seconds by stage, as in EditResult.timings.
        Raises:
            BadInput: a size, number or setting cannot be met.
        """
        side = self.backend.info.defaults["size"]
        timings: dict[str, float] = {}
        for width, height in sizes or [(side, side)]:
            grey = np.full((_whole("height", height, 1, 8192), _whole("width", width, 1, 8192), 3), 128, np.uint8)
            for count in num_images:
                for again in range(2):  # a GPU's graphs are captured at a second call, and for that texts must differ
                    request = EditRequest(grey, f"warm up {again}", size=max(width, height), num_images=count)
                    request = replace(request, **{"steps": _WARM_UP_STEPS, "seed": 0, **settings})
                    for stage, seconds in self.edit_many([request])[0].timings.items():
                        timings[stage] = timings.get(stage, 0.0) + seconds
        return timings

    def edit(
        self,
        image: ImageSource,
        instruction: str,
        *,
        on_step: Callable[[Progress], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
        **settings: Any,
    ) -> EditResult:
        """Edits one picture; `settings` are the other fields of EditRequest."""
        return self.edit_many([EditRequest(image, instruction, **settings)], progress=progress, on_step=on_step)[0]

    def edit_many(
        self,
        requests: Sequence[EditRequest],
        progress: Callable[[int, int], None] | None = None,
        on_step: Callable[[Progress], None] | None = None,
    ) -> list[EditResult]:
        """Edits any mix of pictures, sizes, scales, steps, samplers and seeds together.

        Every request is checked before the first is run. `progress(done, total)` counts steps of all edits; `on_step`
        sees each edit after each of its steps, can ask for its preview, and cancels everything by raising Cancelled.

        Raises BadInput, before any work, for a request that cannot be met; Cancelled.
        """
        timings: dict[str, float] = {}
        with self._timed(timings, "prepare"):
            prepared = [self.prepare(request) for request in requests]
        total = sum(one.table.steps * len(one.edits) for one in prepared if one.edits)
        done, cancelled = 0, False

        def report(step: Progress) -> None:
            nonlocal done, cancelled
            done += 1
            try:
                if progress is not None:
                    progress(done, total)
                if on_step is not None:
                    on_step(step)
            except Cancelled:
                cancelled = True
                raise

        loop = StepLoop(self.backend, self.max_rows)
        keys: list[list[int]] = []
        compiled_before = self.backend.compile_seconds
        try:
            with self._timed(timings, "encode"):
                edits = [replace(edit, on_step=report) for one in prepared for edit in one.edits]
                flat = iter(loop.add(edits))
                keys = [[next(flat) for _ in one.edits] for one in prepared]
            with self._timed(timings, "denoise"):
                while len(loop) and not cancelled:
                    loop.step()
            if cancelled:
                raise Cancelled("the edit was cancelled")
            with self._timed(timings, "decode"):
                latents = [np.stack([self.backend.latents(key) for key in group]) if group else None for group in keys]
                coming = [[loop.finishing(key) for key in group] for group in keys]
                images = [[Image.fromarray(picture()) for picture in group] for group in coming]
        finally:
            loop.clear()
        if seconds := self.backend.compile_seconds - compiled_before:
            timings["compile"] = seconds  # of the stage in which it happened
        return [
            EditResult(
                images=[one.restore(image) for image in pictures] or [one.image.copy() for _ in range(one.num_images)],
                seed=one.seed,
                timings=timings,
                row_evaluations=one.evaluations(deep=True),
                shallow_evaluations=one.evaluations(deep=False),
                latents=final,
            )
            for one, pictures, final in zip(prepared, images, latents, strict=True)
        ]

    @contextmanager
    def _timed(self, timings: dict[str, float], stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.backend.synchronize()
        timings[stage] = time.perf_counter() - start

    def prepare(self, request: EditRequest) -> Prepared:
        """Checks a request to the end and turns it into numpy: the one place where bad input is found."""
        info = self.backend.info
        chosen = {**DEFAULTS, **info.defaults, **_given(request)}
        if not isinstance(request.instruction, str) or not isinstance(request.negative, str):
            raise BadInput(f"instruction and negative are texts, not {type(request.instruction).__name__}")
        if info.distilled and request.negative.strip():
            raise BadInput("a distilled model has no row for a negative text: leave negative empty, or use its teacher")
        table = sampler_table(chosen["sampler"], chosen["steps"], info.schedule)
        plan = schedule(
            table.steps,
            _scale("text_guidance", chosen["text_guidance"]),
            _scale("image_guidance", chosen["image_guidance"]),
            info.distilled,
            _interval(request.guidance_interval),
            _whole("guidance_refresh", request.guidance_refresh, 1, MAX_REFRESH),
            _whole("deep_refresh", request.deep_refresh, 1, MAX_REFRESH),
        )
        num_images = _whole("num_images", request.num_images, 1, 1000)
        resolution = _whole("size", chosen["size"], 1, 8192)
        seed = secrets.randbelow(2**31) if request.seed is None else _whole("seed", request.seed, 0, MAX_SEED)

        picture = load_image(request.image, self.max_pixels)
        size = target_size(*picture.size, resolution, info.size_multiple)
        picture = fit(picture, size)
        mask = None if request.mask is None else load_mask(request.mask, size, self.max_pixels)
        shape = (info.latent_channels, size[1] // info.vae_scale, size[0] // info.vae_scale)
        noise = _noise(request.noise, num_images, (1 + table.steps, *shape))
        if not request.instruction.strip():
            return Prepared(picture, None, table, num_images, seed, ())

        tokens = np.stack([self._encode(request.negative), self._encode(request.instruction)])
        pixels = np.array(picture)  # a copy: PyTorch wants memory it may write to
        small = None if mask is None else _shrink(mask, info.vae_scale)
        edits = tuple(
            LoopEdit(
                image=pixels,
                tokens=tokens,
                table=table,
                rows=plan.rows,
                seed=seed + i,
                noise=None if noise is None else noise[i],
                mask=small,
                reuse=plan.reuse,
            )
            for i in range(num_images)
        )
        return Prepared(picture, mask, table, num_images, seed, edits)

    def _encode(self, text: str) -> np.ndarray:
        ids, overflow = self.tokenizer.encode(text)
        if overflow:
            warnings.warn(f"the text is longer than {len(ids)} tokens; cut off: {overflow!r}", stacklevel=4)
        return ids


@dataclass(frozen=True)
class Prepared:
    """A checked request: the picture at its size, and one loop edit an image (none for an empty instruction)."""

    image: Image.Image
    mask: np.ndarray | None
    table: SamplerTable
    num_images: int
    seed: int
    edits: tuple[LoopEdit, ...]

    def evaluations(self, deep: bool) -> int:
        """Rows over all steps that evaluate the UNet's deep part, or that do not."""
        rows = sum(len(rows) for edit in self.edits for rows in edit.rows)
        reuses = [edit.reuse for edit in self.edits if edit.reuse is not None]
        shallow = sum(rows.count(False) for reuse in reuses for rows in reuse.deep)
        return rows - shallow if deep else shallow

    def restore(self, edited: Image.Image) -> Image.Image:
        """Puts the input's own pixels back where the mask is black; the VAE changes them a little."""
        if self.mask is None:
            return edited
        mask = Image.fromarray((self.mask * 255).round().astype(np.uint8))
        return Image.composite(edited, self.image, mask)


def _given(request: EditRequest) -> dict[str, Any]:
    names = (*DEFAULTS, "size")
    return {name: value for name in names if (value := getattr(request, name)) is not None}


def _interval(value: Any) -> tuple[float, float]:
    try:
        first, last = (float(bound) for bound in value)
    except (TypeError, ValueError):
        raise BadInput(f"guidance_interval is {value!r}: two numbers from 0 to 1") from None
    if not 0.0 <= first <= last <= 1.0:
        raise BadInput(f"guidance_interval is {value!r}: two numbers from 0 to 1, the smaller first")
    return first, last


def _scale(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise BadInput(f"{name} is {value!r}: a number is needed")
    scale = float(value)
    if not math.isfinite(scale) or abs(scale) > MAX_GUIDANCE:
        raise BadInput(f"{name} is {scale}: a number from {-MAX_GUIDANCE:g} to {MAX_GUIDANCE:g} is needed")
    return scale


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise BadInput(f"{name} is {value!r}: a whole number from {low} to {high} is needed")
    return int(value)


def _noise(noise: np.ndarray | None, num_images: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """Checks given noise. -> [num_images, 1 + steps, C, h, w] float32"""
    if noise is None:
        return None
    array = np.asarray(noise, dtype=np.float32)
    if array.shape == shape and num_images == 1:
        array = array[None]
    if array.shape != (num_images, *shape):
        raise BadInput(f"noise has shape {array.shape}: {(num_images, *shape)} is needed")
    if not np.isfinite(array).all():
        raise BadInput("noise has values that are not finite")
    return array


def _shrink(mask: np.ndarray, factor: int) -> np.ndarray:
    """Means over factor x factor blocks. [H, W] -> [H/f, W/f]"""
    height, width = mask.shape
    return mask.reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3), dtype=np.float32)
