"""The ONNX Runtime backend: an exported bundle edits on a CPU or a GPU, with no PyTorch installed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bundle import TOKENIZER, Bundle, read_bundle
from ..errors import BadInput, MissingExtra, ModelError
from ..tokenizer import Tokenizer
from . import EditStart, ModelInfo, StepPlan

try:
    import onnxruntime
except ModuleNotFoundError as error:
    raise MissingExtra("the onnx backend", "onnx") from error

# Texts that are kept: the null text serves every edit, an instruction often several.
TEXTS_KEPT = 16
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_ERRORS_ONLY = 3  # ONNX Runtime's log level
# Coefficients of a step whose new history is the rows' weighted sum itself: d = 0 x + 1 e.
_SUM_ONLY = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)


def load(model: Any, device: str = "auto", dtype: str = "auto") -> tuple[OnnxBackend, Tokenizer]:
    """A backend and its tokenizer from the folder of a bundle.

    Args:
        device: auto, cpu, cuda or cuda:N; auto is the GPU where ONNX Runtime can use one.
        dtype: auto, or the one that the bundle was exported with.

    Raises:
        BadInput: the device is unknown or not there. ModelError: what is wrong with the bundle, or another dtype.
    """
    index = _cuda_index(device)  # a wrong name is refused before gigabytes are read
    bundle = read_bundle(model)
    if dtype not in ("auto", bundle.dtype):
        raise ModelError(
            f"the bundle {bundle.folder} computes in {bundle.dtype}, not {dtype!r}: choose auto or {bundle.dtype}, or "
            "export the model again with another --dtype"
        )
    tokenizer = Tokenizer.from_folder(bundle.folder / TOKENIZER)
    return OnnxBackend(bundle, index, required=device != "auto"), tokenizer


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
    """

    x: np.ndarray
    history: np.ndarray
    image_latents: np.ndarray
    texts: tuple[np.ndarray, np.ndarray]
    mask: _Mask | None


class OnnxBackend:
    """cuda: index of the GPU, or None for the CPU. required: no GPU is an error, else the CPU takes its place."""

    name = "onnx"

    def __init__(self, bundle: Bundle, cuda: int | None = None, required: bool = True) -> None:
        self.dtype = bundle.dtype
        self.info = ModelInfo(
            path=str(bundle.folder),
            schedule=bundle.schedule,
            latent_channels=bundle.latent_channels,
            vae_scale=bundle.vae_scale,
            size_multiple=bundle.size_multiple,
            defaults=bundle.defaults,
        )
        self._scaling_factor = bundle.scaling_factor
        self._sessions = {name: _session(bundle, name, cuda, required) for name in bundle.graphs}
        on_gpu = all(session.get_providers()[0] == _CUDA for session in self._sessions.values())
        self.device = f"cuda:{cuda}" if on_gpu else "cpu"
        self._edits: dict[int, _Edit] = {}
        self._texts: OrderedDict[bytes, np.ndarray] = OrderedDict()

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
        x, history = self._guided_step(edits, plan)
        for i, edit in enumerate(edits):
            edit.history = history[i]
            edit.x = x[i] if edit.mask is None else edit.mask.blend(x[i], *plan.levels[i])

    def preview(self, edit: int) -> np.ndarray:
        return self._decode(self._edits[edit].history[0])

    def finish(self, edit: int) -> np.ndarray:
        return self._decode(self._edits[edit].x)

    def latents(self, edit: int) -> np.ndarray:
        return self._edits[edit].x

    def synchronize(self) -> None:
        """Nothing to do: a run of ONNX Runtime ends when its outputs are here."""

    def drop(self, edits: Sequence[int]) -> None:
        for key in edits:
            self._edits.pop(key, None)

    def _guided_step(self, edits: Sequence[_Edit], plan: StepPlan) -> tuple[np.ndarray, np.ndarray]:
        """x' [E, C, h, w] and history' [E, 2, C, h, w], in as many runs of the graph as max_rows asks for.

        A run gives the guided sum of its own rows alone. As a step is linear in that sum, the rows of earlier runs are
        added to what the last one gives.
        """
        rows = np.arange(len(plan.rows.edit))
        size = plan.max_rows or len(rows)
        *before, last = [rows[first : first + size] for first in range(0, len(rows), size)]
        others: Any = 0.0
        for part in before:
            _, history = self._run_rows(edits, plan, part, np.broadcast_to(_SUM_ONLY, plan.coefficients.shape))
            others = others + history[:, 0]  # [E, C, h, w]
        x, history = self._run_rows(edits, plan, last, plan.coefficients)
        if before:
            b0, q = (plan.coefficients[:, i].reshape(-1, 1, 1, 1) for i in (1, 6))
            x, history = x + b0 * q * others, history.copy()
            history[:, 0] += q * others
        return x, history

    def _run_rows(
        self, edits: Sequence[_Edit], plan: StepPlan, rows: np.ndarray, coefficients: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        of_row = plan.rows.edit[rows]
        texts = [edits[i].texts[int(text)] for i, text in zip(of_row, plan.rows.text[rows], strict=True)]
        different = {id(text): text for text in texts}  # rows of one text share its keys and values
        place = {name: i for i, name in enumerate(different)}
        x, history = self._run(
            "guided_step",
            x=np.stack([edit.x for edit in edits]),
            history=np.stack([edit.history for edit in edits]),
            image_latents=np.stack([edit.image_latents for edit in edits]),
            contexts=np.stack(list(different.values())),
            edit=of_row,
            context=np.array([place[id(text)] for text in texts], np.int64),
            image_on=plan.rows.image[rows],
            weight=plan.rows.weight[rows],
            timesteps=plan.timesteps,
            coefficients=coefficients,
            noise=plan.noise,
        )
        return x, history

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

    def _run(self, graph: str, **inputs: np.ndarray) -> list[np.ndarray]:
        return self._sessions[graph].run(None, {name: np.ascontiguousarray(value) for name, value in inputs.items()})


def _cuda_index(device: str) -> int | None:
    """The GPU that `device` asks for, None for the CPU; "auto" is GPU 0 if this ONNX Runtime was built for CUDA."""
    kind, _, index = device.partition(":")
    if device == "cpu" or (device == "auto" and _CUDA not in onnxruntime.get_available_providers()):
        return None
    if device not in ("auto", "cuda") and not (kind == "cuda" and index.isdecimal()):
        raise BadInput(f"unknown device {device!r}: choose auto, cpu, cuda or cuda:N")
    if _CUDA not in onnxruntime.get_available_providers():
        raise BadInput(
            f"device {device!r} is not there: ONNX Runtime {onnxruntime.__version__} is built without CUDA; choose "
            "cpu, or install onnxruntime-gpu in its place"
        )
    return int(index or 0)


def _session(bundle: Bundle, name: str, cuda: int | None, required: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    providers: list[Any] = [_CPU] if cuda is None else [(_CUDA, {"device_id": cuda}), _CPU]
    path = bundle.folder / bundle.graphs[name].file
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime's own errors have no common class
        raise ModelError(f"{path} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    if cuda is not None and required and session.get_providers()[0] != _CUDA:
        raise BadInput(
            f"device 'cuda:{cuda}' is not there: ONNX Runtime {onnxruntime.__version__} cannot use it; choose cpu"
        )
    return session
