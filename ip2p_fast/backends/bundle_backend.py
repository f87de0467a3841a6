"""Edits in flight over the graphs of an exported bundle; a Runner of one inference library runs the graphs.

Everything here is numpy: a StepPlan's arrays are the inputs of guided_step.onnx as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..bundle import TOKENIZER, Bundle, read_bundle
from ..errors import BadInput, ModelError
from ..tokenizer import Tokenizer
from . import EditStart, ModelInfo, StepPlan

# Texts that are kept: the null text serves every edit, an instruction often several.
TEXTS_KEPT = 16
# Coefficients of a step whose new history is the rows' weighted sum itself: d = 0 x + 1 e.
_SUM_ONLY = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)


class Runner(Protocol):
    """Runs the graphs of one bundle.

    name, device  as Backend's
    dtype         what it computes in
    """

    name: str
    device: str
    dtype: str

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """One call of a graph: its inputs by name, C-contiguous, to its outputs in order.

        An input that is the same array object as in the last call of the graph has the same content.
        """

    def settle(self) -> None:
        """From now on, calls of new shapes are not compiled for."""


def opened(
    model: Any, dtype: str = "auto", dtypes: Callable[[Bundle], Sequence[str]] = lambda bundle: (bundle.dtype,)
) -> tuple[Bundle, Tokenizer]:
    """The bundle in the folder `model`, checked, and its tokenizer.

    dtypes: what the caller's library can compute in; by default what the bundle was exported in.

    Raises ModelError for what is wrong with the bundle, and for another dtype.
    """
    bundle = read_bundle(model)
    known = dtypes(bundle)
    if dtype not in ("auto", *known):
        raise ModelError(
            f"the bundle {bundle.folder} computes in {' or '.join(known)}, not {dtype!r}: choose auto or "
            f"{' or '.join(known)}, or another backend"
        )
    return bundle, Tokenizer.from_folder(bundle.folder / TOKENIZER)


@dataclass(frozen=True)
class _Mask:
    """Where an edit may change the picture, and what it follows where it may not.

    share  [h, w] float32     1 takes the edit, 0 the input
    clean  [C, h, w] float32  the input's latents, scaled
    noise  [C, h, w] float32  the edit's own start noise, unit normal
    """

    share: np.ndarray
    clean: np.ndarray
    noise: np.ndarray

    def blend(self, x: np.ndarray, alpha: np.float32, sigma: np.float32) -> np.ndarray:
        """Blended diffusion (Avrahami et al. 2022): outside the mask, the input at the noise level of x."""
        outside = alpha * self.clean + sigma * self.noise
        return outside + self.share * (x - outside)


@dataclass
class _Edit:
    """One edit in flight.

    x              [C, h, w] float32
    history        [2, C, h, w] float32  earlier predictions, latest first
    image_latents  [C, h, w] float32     the VAE's mode, not scaled
    texts          of the null text and of the instruction, [77, D] float32 each
    delta          [C, h, w] float32     guided prediction less that of the first row, kept for steps that recall it
    """

    x: np.ndarray
    history: np.ndarray
    image_latents: np.ndarray
    texts: tuple[np.ndarray, np.ndarray]
    mask: _Mask | None
    delta: np.ndarray | None = None


class BundleBackend:
    """A Backend (see `backends`) over the graphs of a bundle."""

    reuses_deep = False  # the graph evaluates a row whole
    compile_seconds = 0.0  # graphs are compiled when they are loaded

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        self.name, self.device, self.dtype = runner.name, runner.device, runner.dtype
        self.info = ModelInfo(
            path=str(bundle.folder),
            schedule=bundle.schedule,
            latent_channels=bundle.latent_channels,
            vae_scale=bundle.vae_scale,
            size_multiple=bundle.size_multiple,
            defaults=bundle.defaults,
            distilled=bundle.distilled,
        )
        self._runner = runner
        self._scaling_factor = bundle.scaling_factor
        self._edits: dict[int, _Edit] = {}
        self._texts: OrderedDict[bytes, np.ndarray] = OrderedDict()
        # by latent size and rows, what stays the same until edits join, leave or change guidance
        self._rows: dict[Any, tuple[tuple[int, ...], bytes, dict[str, np.ndarray]]] = {}

    def start(self, edits: Mapping[int, EditStart]) -> None:
        encoded: dict[int, np.ndarray] = {}  # several edits of one picture encode it once
        for key, edit in edits.items():
            if edit.image is None:
                raise BadInput("a bundle edits pictures, and this edit has none: text-to-image needs the torch backend")
            if id(edit.image) not in encoded:
                encoded[id(edit.image)] = self._run("vae_encoder", pixels=edit.image[None])[0][0]
            latents = encoded[id(edit.image)]
            mask = None if edit.mask is None else _Mask(edit.mask, latents * self._scaling_factor, edit.noise)
            self._edits[key] = _Edit(
                x=edit.noise * np.float32(edit.scale),
                history=np.zeros((2, *edit.noise.shape), np.float32),
                image_latents=latents,
                texts=(self._text(edit.tokens[0]), self._text(edit.tokens[1])),
                mask=mask,
            )

    def step(self, plan: StepPlan) -> None:
        """Raises BadInput for edits that share attention maps, which the graph has no inputs for."""
        if plan.sharing is not None:
            raise BadInput("edits that share attention maps need the torch backend")
        edits = [self._edits[key] for key in plan.edits]
        step = self._guided_step if plan.reuse is None else self._reusing_step
        x, history = step(edits, plan)
        for i, edit in enumerate(edits):
            edit.history = history[i]
            edit.x = x[i] if edit.mask is None else edit.mask.blend(x[i], *plan.levels[i])

    def preview(self, edit: int) -> np.ndarray:
        return self._decode(self._edits[edit].history[0])

    def finishing(self, edit: int) -> Callable[[], np.ndarray]:
        picture = self._decode(self._edits[edit].x)
        return lambda: picture

    def latents(self, edit: int) -> np.ndarray:
        return self._edits[edit].x

    def synchronize(self) -> None:
        """Nothing to do: a run ends when its outputs are here."""

    def drop(self, edits: Sequence[int]) -> None:
        for key in edits:
            self._edits.pop(key, None)
        self._rows.clear()  # keys may be given anew

    def settle(self) -> None:
        self._runner.settle()

    def _guided_step(self, edits: Sequence[_Edit], plan: StepPlan) -> tuple[np.ndarray, np.ndarray]:
        """x' [E, C, h, w] and history' [E, 2, C, h, w], over at most max_rows rows at once."""
        *before, last = _parts(np.arange(len(plan.rows.edit)), plan.max_rows)
        others = self._sum_of_rows(edits, plan, np.concatenate(before)) if before else None
        x, history = self._run_rows(edits, plan, last, plan.coefficients)
        if others is not None:
            b0, q = (plan.coefficients[:, i].reshape(-1, 1, 1, 1) for i in (1, 6))
            x, history = x + b0 * q * others, history.copy()
            history[:, 0] += q * others
        return x, history

    def _reusing_step(self, edits: Sequence[_Edit], plan: StepPlan) -> tuple[np.ndarray, np.ndarray]:
        """`_guided_step` with deltas kept and recalled: first rows whose edits keep run apart, to be told from the sum.

        The graph only sums rows then, and the sampler's step is taken here.
        """
        reuse, rows = plan.reuse, np.arange(len(plan.rows.edit))
        assert reuse is not None
        first_of_edit = plan.rows.row_start[:-1]
        apart = np.isin(rows, first_of_edit[reuse.keeps])
        firsts = self._sum_of_rows(edits, plan, rows[apart])
        guided = firsts + self._sum_of_rows(edits, plan, rows[~apart])  # [E, C, h, w]
        for i in np.flatnonzero(reuse.recalls).tolist():
            guided[i] += edits[i].delta
        for i in np.flatnonzero(reuse.keeps).tolist():
            edits[i].delta = guided[i] - firsts[i] / plan.rows.weight[first_of_edit[i]]
        history = np.stack([edit.history for edit in edits])
        return _sampler_step(np.stack([edit.x for edit in edits]), history, guided, plan.coefficients, plan.noise)

    def _sum_of_rows(self, edits: Sequence[_Edit], plan: StepPlan, rows: np.ndarray) -> np.ndarray:
        """The weighted sum of some rows by edit, [E, C, h, w]"""
        total = np.zeros_like(plan.noise)
        for part in _parts(rows, plan.max_rows):
            total += self._run_rows(edits, plan, part, np.broadcast_to(_SUM_ONLY, plan.coefficients.shape))[1][:, 0]
        return total

    def _run_rows(
        self, edits: Sequence[_Edit], plan: StepPlan, rows: np.ndarray, coefficients: np.ndarray
    ) -> Sequence[np.ndarray]:
        return self._run(
            "guided_step",
            x=np.stack([edit.x for edit in edits]),
            history=np.stack([edit.history for edit in edits]),
            **self._row_inputs(edits, plan, rows),
            weight=plan.rows.weight[rows],
            **({"scales": plan.rows.scales[rows]} if self.info.distilled else {}),
            timesteps=plan.timesteps,
            coefficients=coefficients,
            noise=plan.noise,
        )

    def _row_inputs(self, edits: Sequence[_Edit], plan: StepPlan, rows: np.ndarray) -> dict[str, np.ndarray]:
        place, conditions = (edits[0].x.shape, rows.tobytes()), plan.rows.conditions
        if place in self._rows and self._rows[place][:2] == (plan.edits, conditions):
            return self._rows[place][2]
        of_row = plan.rows.edit[rows]
        texts = [edits[i].texts[int(text)] for i, text in zip(of_row, plan.rows.text[rows], strict=True)]
        different = {id(text): text for text in texts}  # rows of one text share its keys and values
        index = {name: i for i, name in enumerate(different)}
        # as many as edits of different instructions and one negative prompt have, so that shapes are few
        spare = len(edits) + (not self.info.distilled) - len(different)
        contexts = [*different.values(), *texts[-1:] * spare]
        inputs = {
            "image_latents": np.stack([edit.image_latents for edit in edits]),
            "contexts": np.stack(contexts),
            "edit": of_row,
            "context": np.array([index[id(text)] for text in texts], np.int64),
            "image_on": plan.rows.image[rows],
        }
        self._rows[place] = (plan.edits, conditions, inputs)
        return inputs

    def _decode(self, latents: np.ndarray) -> np.ndarray:
        """[C, h, w] float32, scaled -> [H, W, 3] uint8"""
        return self._run("vae_decoder", latents=latents[None])[0][0]

    def _text(self, tokens: np.ndarray) -> np.ndarray:
        """[77] ids -> [77, D]"""
        name = tokens.tobytes()
        if name not in self._texts:
            self._texts[name] = self._run("text_encoder", ids=tokens[None])[0][0]
            while len(self._texts) > TEXTS_KEPT:
                self._texts.popitem(last=False)
        self._texts.move_to_end(name)
        return self._texts[name]

    def _run(self, graph: str, **inputs: np.ndarray) -> Sequence[np.ndarray]:
        return self._runner.run(graph, {name: np.ascontiguousarray(value) for name, value in inputs.items()})


def _parts(rows: np.ndarray, size: int | None) -> list[np.ndarray]:
    """Runs of at most `size` rows; none where there are no rows."""
    return [rows[first : first + (size or len(rows))] for first in range(0, len(rows), size or len(rows) or 1)]


def _sampler_step(
    x: np.ndarray, history: np.ndarray, guided: np.ndarray, coefficients: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The step of `kernels.guided_step` from the guided prediction [E, C, h, w] on -> x', history'"""
    a, b0, b1, b2, c, p, q = coefficients.T[:, :, None, None, None]  # each [E, 1, 1, 1]
    clean = p * x + q * guided
    x_next = a * x + b0 * clean + b1 * history[:, 0] + b2 * history[:, 1] + c * noise
    return x_next, np.stack([clean, history[:, 0]], axis=1)
