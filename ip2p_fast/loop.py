"""The one loop: edits in flight, each at its own step of its own sampler, moved on together.

`Editor.edit` is this loop with one edit, `edit_many` with several, a server keeps one running for ever. Edits join and
leave between steps. Everything here is numpy; a seed gives the same picture alone or in any company, because an edit's
noise comes from its own generator.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from .backends import Backend, EditStart, StepPlan
from .errors import BadInput, Cancelled
from .guidance import Row, plan_rows
from .samplers import SamplerTable
from .savings import Reuse, plan_reuse
from .sharing import Sharing, plan_sharing


@dataclass(frozen=True)
class LoopEdit:
    """One edit, ready to run.

    image    [H, W, 3] uint8; None for a model that takes no picture, which then draws one of `size`
    tokens   [2, 77] int64             null (or negative) text, instruction
    table    the sampler's
    rows     for each of the table's steps, the rows it evaluates
    seed     of the noise, unless noise is given
    noise    [1 + steps, C, H/f, W/f] float32 or None   start, then one a step
    mask     [H/f, W/f] float32 or None
    on_step  called after each step; may raise Cancelled to give the edit up
    size     (H, W) in pixels where there is no image
    sharing  what it takes from another edit of the same `add`
    reuse    what it takes from its own earlier steps; `savings.schedule` makes it along with the rows
    """

    image: np.ndarray | None
    tokens: np.ndarray
    table: SamplerTable
    rows: tuple[tuple[Row, ...], ...]
    seed: int
    noise: np.ndarray | None = None
    mask: np.ndarray | None = None
    on_step: Callable[[Progress], None] | None = None
    size: tuple[int, int] | None = None
    sharing: Sharing | None = None
    reuse: Reuse | None = None


@dataclass(frozen=True)
class Progress:
    """Where an edit stands. `preview()` decodes the present prediction of the picture, [H, W, 3] uint8."""

    edit: int
    step: int
    steps: int
    preview: Callable[[], np.ndarray]


class StepLoop:
    """Plans rows, runs the backend, moves every edit on by one of its own steps.

    max_rows bounds the memory of a step: more rows than this are evaluated in several runs of the UNet. Rows that share
    attention are evaluated together.
    """

    def __init__(self, backend: Backend, max_rows: int | None = None) -> None:
        self.backend = backend
        self.max_rows = max_rows
        self._flights: dict[int, _Flight] = {}
        self._keys = itertools.count()

    def __len__(self) -> int:
        """Edits in flight."""
        return sum(not flight.done for flight in self._flights.values())

    def add(self, edits: Iterable[LoopEdit]) -> list[int]:
        """Takes edits in and returns their keys.

        Raises BadInput for an edit that shares with one that does not join with it, or that steps otherwise, and for
        one that reuses deep features where the backend cannot.
        """
        edits = list(edits)
        self._require_reuse(edits)
        keys = {id(edit): next(self._keys) for edit in edits}
        flights = {}
        for edit in edits:
            if edit.sharing is not None:
                _require_alike(edit, edit.sharing.source, keys)
            source = None if edit.sharing is None else keys[id(edit.sharing.source)]
            flights[keys[id(edit)]] = _Flight(edit, self._latent_shape(edit), source)
        try:
            self.backend.start({key: flight.start() for key, flight in flights.items()})
        except BaseException:
            self.backend.drop(list(flights))  # what had started of them
            raise
        self._flights |= flights
        return list(flights)

    def step(self, only: Container[int] | None = None) -> list[int]:
        """One step of every edit in flight, or of those named; returns the keys of those that are done.

        Edits of one size share a run.
        """
        by_size: dict[tuple[int, ...], list[int]] = {}
        for key, flight in self._flights.items():
            if not flight.done and (only is None or key in only):
                by_size.setdefault(flight.shape, []).append(key)
        for keys in by_size.values():
            self.backend.step(self._plan(keys))
        moved = [key for keys in by_size.values() for key in keys]
        for key in moved:
            self._flights[key].index += 1
        for key in moved:
            self._report(key)
        return [key for key in moved if key in self._flights and self._flights[key].done]

    def finish(self, key: int) -> np.ndarray:
        """The picture of an edit that is done, [H, W, 3] uint8. The edit leaves the loop."""
        return self.finishing(key)()

    def finishing(self, key: int) -> Callable[[], np.ndarray]:
        """Begins `finish`, and returns what waits for the picture: a GPU goes on to the next one meanwhile."""
        picture = self.backend.finishing(key)
        self.cancel(key)
        return picture

    def cancel(self, key: int) -> None:
        """Takes an edit out at any step; a key that has left already is ignored."""
        if self._flights.pop(key, None) is not None:
            self.backend.drop([key])

    def clear(self) -> None:
        """Takes every edit out."""
        for key in list(self._flights):
            self.cancel(key)

    def _plan(self, keys: list[int]) -> StepPlan:
        flights = [self._flights[key] for key in keys]
        rows = plan_rows([flight.edit.rows[flight.index] for flight in flights])
        place = {key: i for i, key in enumerate(keys)}
        return StepPlan(
            edits=tuple(keys),
            rows=rows,
            timesteps=np.array([flight.edit.table.timesteps[flight.index] for flight in flights]),
            coefficients=np.stack([flight.edit.table.coefficients[flight.index] for flight in flights]),
            noise=np.stack([flight.step_noise() for flight in flights]),
            levels=np.stack([flight.edit.table.levels[flight.index + 1] for flight in flights]),
            max_rows=self.max_rows,
            sharing=plan_sharing(
                rows,
                [flight.edit.sharing for flight in flights],
                [None if flight.source is None else place.get(flight.source) for flight in flights],
                [flight.index for flight in flights],
            ),
            reuse=plan_reuse(rows, [flight.edit.reuse for flight in flights], [flight.index for flight in flights]),
        )

    def _report(self, key: int) -> None:
        flight = self._flights.get(key)
        if flight is None or flight.edit.on_step is None:
            return
        progress = Progress(key, flight.index, flight.edit.table.steps, lambda: self.backend.preview(key))
        try:
            flight.edit.on_step(progress)
        except Cancelled:
            self.cancel(key)

    def _require_reuse(self, edits: Iterable[LoopEdit]) -> None:
        if not self.backend.reuses_deep and any(edit.reuse is not None and edit.reuse.reads_deep for edit in edits):
            raise BadInput(
                f"the {self.backend.name} backend evaluates a row whole and has no deep features to reuse: "
                "leave deep_refresh at 1, or edit with the torch backend"
            )

    def _latent_shape(self, edit: LoopEdit) -> tuple[int, int, int]:
        info = self.backend.info
        height, width = edit.size if edit.image is None else edit.image.shape[:2]  # type: ignore[misc]  # one is given
        return info.latent_channels, height // info.vae_scale, width // info.vae_scale


@dataclass
class _Flight:
    """An edit with its place in its own table and the state of its own noise."""

    edit: LoopEdit
    shape: tuple[int, int, int]
    source: int | None = None
    index: int = 0
    random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.Generator(np.random.Philox(key=self.edit.seed))

    @property
    def done(self) -> bool:
        return self.index == self.edit.table.steps

    def start(self) -> EditStart:
        edit = self.edit
        noise = self._draw() if edit.noise is None else edit.noise[0]
        return EditStart(edit.image, edit.tokens, noise, edit.table.start_scale, edit.mask)

    def step_noise(self) -> np.ndarray:
        if self.edit.table.coefficients[self.index, 4] == 0.0:
            return np.zeros(self.shape, np.float32)
        return self._draw() if self.edit.noise is None else self.edit.noise[1 + self.index]

    def _draw(self) -> np.ndarray:
        return self.random.standard_normal(self.shape, dtype=np.float32)


def _require_alike(edit: LoopEdit, source: LoopEdit, joining: Mapping[int, int]) -> None:
    """Raises BadInput unless every step of the edit finds the rows that it takes maps from."""
    if id(source) not in joining:
        raise BadInput("an edit can share attention only with an edit that joins the loop in the same call")
    if edit.table is not source.table or edit.rows != source.rows:
        raise BadInput("an edit and the source it shares attention with need the same sampler table and guidance")
