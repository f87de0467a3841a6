"""Caption pairs to picture pairs: a text-to-image model and Prompt-to-Prompt, many samples in one loop.

Both pictures of a pair start from the same noise and get the same noise at each step; while p > i / (N - 1) the edited
one uses the self-attention maps of the other, in the row with the text and in the row without (InstructPix2Pix, section
3.1.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ip2p_fast.errors import BadInput
from ip2p_fast.guidance import Row
from ip2p_fast.loop import LoopEdit, StepLoop
from ip2p_fast.samplers import sampler_table
from ip2p_fast.sharing import LocalBlend, Sharing, TextControl
from ip2p_fast.tokenizer import Tokenizer

from .samples import Sample
from .text_control import Control, Span, local_blend, require_span, text_controls

if TYPE_CHECKING:
    from ip2p_fast.backends.torch_backend import TorchBackend

# of a local blend, see `_looked_at`
_BLENDED = 4
_CAPTIONS_KEPT = 16
Tag = TypeVar("Tag")
Pictures = tuple[np.ndarray, np.ndarray]
"""Before and after, [H, W, 3] uint8 each."""


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn.

    size        (height, width) in pixels; None for the model's own
    self_steps  when self-attention is shared, as shares of the steps; None for each sample's own p
    at_once     pairs in flight
    """

    steps: int = 100
    sampler: str = "euler_a"
    size: tuple[int, int] | None = None
    self_steps: Span | None = None
    control: Control = field(default_factory=Control)
    at_once: int = 8

    def __post_init__(self) -> None:
        if self.at_once < 1:
            raise BadInput(f"{self.at_once} pairs at once: at least 1 is needed")
        if self.self_steps is not None:
            require_span("self-attention is shared", self.self_steps)


class PairGenerator:
    """Draws pairs with one model. A pair depends on its captions and its sample alone, not on others in flight."""

    def __init__(self, backend: TorchBackend, tokenizer: Tokenizer, drawing: Drawing) -> None:
        """
        Raises:
            BadInput: a sampler, a number of steps or a size that the model cannot have.
        """
        self._backend, self._tokenizer, self._drawing = backend, tokenizer, drawing
        # a caption pair has many samples, and the same controls for all
        self._controls = lru_cache(_CAPTIONS_KEPT)(self._made_controls)
        info = backend.info
        self._table = sampler_table(drawing.sampler, drawing.steps, info.schedule)
        self.size = drawing.size or (int(info.defaults["size"]),) * 2
        if any(side < 1 or side % info.size_multiple for side in self.size):
            raise BadInput(
                f"a picture of {self.size[1]}x{self.size[0]} pixels: both sides must be multiples of "
                f"{info.size_multiple} for this model"
            )

    @classmethod
    def from_pretrained(
        cls, model: str | Path, drawing: Drawing, device: str = "auto", dtype: str = "auto"
    ) -> PairGenerator:
        """With any text-to-image model of the SD1 or SD2 family: "pocket-base", a folder, a hub id or a single file.

        Raises:
            ModelError: it cannot be loaded, or its UNet does not take 4 channels.
            BadInput: as the constructor; an unknown device or dtype.
        """
        from ip2p_fast import checkpoints
        from ip2p_fast.backends.torch_backend import TorchBackend, resolve_device, resolve_dtype

        place = resolve_device(device)
        precision = resolve_dtype(dtype, place)
        checkpoint = checkpoints.load(model, in_channels=checkpoints.TEXT_TO_IMAGE_CHANNELS)
        return cls(TorchBackend(checkpoint, place, precision, shares_maps=True), checkpoint.tokenizer, drawing)

    def with_drawing(self, drawing: Drawing) -> PairGenerator:
        """One with the same model, loaded once, that draws otherwise."""
        return PairGenerator(self._backend, self._tokenizer, drawing)

    @property
    def device(self) -> str:
        """Where pictures are drawn."""
        return self._backend.device

    @property
    def steps(self) -> int:
        """Of each picture."""
        return self._table.steps

    def fault(self, captions: tuple[str, str]) -> str | None:
        """Why this pair of captions cannot be drawn, in few words; None if it can."""
        if any(self._tokenizer.encode(caption).overflow for caption in captions):
            return "too long"
        try:
            self._controls(captions)
        except BadInput:
            return "not word for word"
        return None

    def generate(self, jobs: Iterable[tuple[Tag, tuple[str, str], Sample]]) -> Iterator[tuple[Tag, Pictures]]:
        """The pair of each (tag, captions, sample), in the order in which they are done."""
        pairs = ((tag, self._pair(captions, sample)) for tag, captions, sample in jobs)
        for tag, pictures in self._drawn(pairs):
            yield tag, (pictures[0], pictures[1])

    def draw(self, jobs: Iterable[tuple[Tag, str, Sample]]) -> Iterator[tuple[Tag, np.ndarray]]:
        """The single picture of each (tag, caption, sample), [H, W, 3] uint8: that of a pair before its edit."""
        singles = ((tag, (self._single(caption, sample),)) for tag, caption, sample in jobs)
        for tag, (picture,) in self._drawn(singles):
            yield tag, picture

    def _drawn(self, groups: Iterable[tuple[Tag, Sequence[LoopEdit]]]) -> Iterator[tuple[Tag, list[np.ndarray]]]:
        """The pictures of each group, as many groups in flight as there may be."""
        loop = StepLoop(self._backend)
        waiting = iter(groups)
        flying: dict[int, tuple[Tag, list[int]]] = {}  # key of a group's last picture -> tag, all keys
        try:
            while True:
                while len(flying) < self._drawing.at_once and (group := next(waiting, None)) is not None:
                    tag, edits = group
                    keys = loop.add(edits)
                    flying[keys[-1]] = tag, keys
                if not flying:
                    return
                for key in loop.step():
                    if key in flying:
                        tag, keys = flying.pop(key)
                        yield tag, [loop.finish(one) for one in keys]
        finally:
            loop.clear()

    def _single(self, caption: str, sample: Sample) -> LoopEdit:
        # guidance without a picture: rows with and without the text (Ho and Salimans 2022)
        rows = tuple(
            row for row in (Row(True, False, sample.cfg), Row(False, False, 1.0 - sample.cfg)) if row.weight != 0.0
        )
        tokens = np.stack([self._tokenizer.encode(text).ids for text in ("", caption)])
        return LoopEdit(None, tokens, self._table, (rows,) * self._table.steps, sample.seed, size=self.size)

    def _pair(self, captions: tuple[str, str], sample: Sample) -> tuple[LoopEdit, LoopEdit]:
        before, after = (self._single(caption, sample) for caption in captions)
        text, blend = self._controls(captions)
        return before, replace(after, sharing=Sharing(before, self._shared_steps(sample.p), text, blend))

    def _made_controls(self, captions: tuple[str, str]) -> tuple[tuple[TextControl | None, ...], LocalBlend | None]:
        control, steps = self._drawing.control, self._table.steps
        text = text_controls(control, self._tokenizer, *captions, steps)
        if not control.blend:
            return text, None
        return text, local_blend(control, self._tokenizer, *captions, steps, self._looked_at())

    def _looked_at(self) -> int:
        """How far the attention that a local blend looks at is down from the latents: 4 as the original's, or the next
        finer that there is (Hertz et al. 2022 take the 16x16 maps of 64x64 latents)."""
        levels = [2**level for level, attends in enumerate(self._backend.unet.config.attention) if attends]
        return max([level for level in levels if level <= _BLENDED] or levels[:1])

    def _shared_steps(self, p: float) -> tuple[bool, ...]:
        steps, span = self._table.steps, self._drawing.self_steps
        if span is not None:
            return tuple(span[0] * steps <= i < span[1] * steps for i in range(steps))
        return tuple(p > i / max(1, steps - 1) for i in range(steps))
