"""guided_step in int8 for OpenVINO: post-training quantization by NNCF, calibrated on real edits and judged by them.

Activations and weights of convolutions and linear layers become 8-bit integers; SmoothQuant (Xiao et al. 2023) moves
the outliers of the transformers' activations into their weights first. Or weights alone do. A bundle tells what its
int8 edits measured.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ip2p_fast import Editor
from ip2p_fast.backends.bundle_backend import BundleBackend, Runner
from ip2p_fast.bundle import INT8, TOKENIZER, Bundle
from ip2p_fast.errors import BadInput, MissingExtra, ModelError
from ip2p_fast.images import load_image
from ip2p_fast.tokenizer import Tokenizer

try:
    import nncf
    import openvino

    from ip2p_fast.backends.openvino_backend import OpenVinoRunner
except (ModuleNotFoundError, MissingExtra) as error:
    raise MissingExtra("int8", "int8") from error

SAMPLES = "samples"
"""The folder of a model in which its own calibration edits are: samples.json and the pictures it names."""
STEPS_KEPT = 80
"""Guided steps to calibrate on at most, spread evenly over those of all edits."""
_SEED = 0


@dataclass(frozen=True)
class SampleEdit:
    """One edit to calibrate on."""

    picture: Image.Image
    instruction: str


def read_samples(folder: Path) -> list[SampleEdit]:
    """The edits of a folder with a samples.json: a list of {"file": ..., "instruction": ...}, files in that folder.

    Raises BadInput, naming what is absent or wrong.
    """
    path = folder / "samples.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        samples = [(folder / str(entry["file"]), str(entry["instruction"])) for entry in entries]
    except FileNotFoundError:
        raise BadInput(
            f"int8 is calibrated on edits and there is no {path}: give a folder with one, --calibration FOLDER; it is "
            'a list of {"file": ..., "instruction": ...}'
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f'{path} is no list of {{"file": ..., "instruction": ...}}: {error}') from None
    if not samples:
        raise BadInput(f"{path} names no picture: int8 is calibrated on at least one edit")
    return [SampleEdit(load_image(picture), instruction) for picture, instruction in samples]


def write_int8(bundle: Bundle, samples: Sequence[SampleEdit], weights_only: bool = False) -> dict[str, Any]:
    """Writes guided_step_int8.xml and .bin into the bundle's folder.

    weights_only: activations stay as they are, and the arithmetic with them: less memory and nearly no loss, but not
    the speed of integers. Nothing is calibrated then; the samples are judged alone.

    Returns:
        what bundle.json says under "int8": the graph's `file` and `weights`, whether `weights_only`, and its `quality`:
        the PSNR in dB of its edits of the samples against those in float32 (mean and lowest), their steps and number.
    Raises:
        ModelError: NNCF cannot quantize the graph.
    """
    core = openvino.Core()
    exact = OpenVinoRunner(bundle, core, "CPU", "float32")
    recorder = _Recorder(exact, keep_every=-(-len(samples) * _steps(bundle) // STEPS_KEPT))
    expected = _edit_all(bundle, recorder, samples)
    model = core.read_model(bundle.folder / bundle.graphs["guided_step"].file)
    _multiply_by_stored(model)
    with _quiet():
        try:
            quantized = nncf.compress_weights(model) if weights_only else _quantized(model, recorder.inputs)
        except Exception as error:  # NNCF raises errors of many kinds
            raise ModelError(f"guided_step cannot be quantized: {' '.join(str(error).split())[:200]}") from error
    path = bundle.folder / f"{INT8}.xml"
    openvino.save_model(quantized, path)
    facts = {"file": path.name, "weights": [path.with_suffix(".bin").name], "weights_only": weights_only}
    runner = OpenVinoRunner(bundle, core, "CPU", "float32")
    runner.replace("guided_step", quantized)
    psnr = [_psnr(one, other) for one, other in zip(_edit_all(bundle, runner, samples), expected, strict=True)]
    quality = {"psnr_db": float(np.mean(psnr)), "lowest_psnr_db": min(psnr), "edits": len(psnr)}
    return facts | {"quality": quality | {"steps": _steps(bundle)}}


def _quantized(model: openvino.Model, inputs: Sequence[Mapping[str, np.ndarray]]) -> openvino.Model:
    dataset = nncf.Dataset(inputs, lambda given: given)
    return nncf.quantize(model, dataset, subset_size=len(inputs), model_type=nncf.ModelType.TRANSFORMER)


def _multiply_by_stored(model: openvino.Model) -> None:
    """x W^T by products that transpose W themselves, in the place of those that are given the W^T of an operation.

    The graphs turn the stored weights, as ONNX's MatMul cannot. NNCF does not see through that: a linear layer's
    weights, no constant of the product's own, would stay in floating point.
    """
    for product in model.get_ordered_ops():
        if product.get_type_name() != "MatMul" or any(product.get_attributes().values()):
            continue
        turned = product.input_value(1).get_node()
        if turned.get_type_name() == "Transpose" and len(turned.get_output_partial_shape(0)) == 2:
            straight = openvino.opset13.matmul(product.input_value(0), turned.input_value(0), False, True)
            straight.set_friendly_name(product.get_friendly_name())
            product.output(0).replace(straight.output(0))


class _Recorder:
    """A runner that keeps the inputs of every n-th guided step."""

    def __init__(self, runner: Runner, keep_every: int) -> None:
        self.name, self.device, self.dtype = runner.name, runner.device, runner.dtype
        self.inputs: list[dict[str, np.ndarray]] = []
        self._runner, self._keep_every, self._seen = runner, keep_every, 0

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        if graph == "guided_step":
            if self._seen % self._keep_every == 0:
                self.inputs.append({name: value.copy() for name, value in inputs.items()})
            self._seen += 1
        return self._runner.run(graph, inputs)

    def settle(self) -> None:
        """Nothing to do: an edit at a time has few shapes."""


def _steps(bundle: Bundle) -> int:
    return int(bundle.defaults.get("steps", 20))


def _edit_all(bundle: Bundle, runner: Runner, samples: Sequence[SampleEdit]) -> list[np.ndarray]:
    """Each sample edited alone at the model's own settings, [H, W, 3] uint8"""
    editor = Editor(BundleBackend(bundle, runner), Tokenizer.from_folder(bundle.folder / TOKENIZER))
    return [
        np.asarray(editor.edit(sample.picture, sample.instruction, steps=_steps(bundle), seed=_SEED + i).images[0])
        for i, sample in enumerate(samples)
    ]


def _psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    """In dB, at most 99: equal pictures have none."""
    error = np.square(ours.astype(np.float64) - theirs).mean()
    return float(min(99.0, 10 * np.log10(255**2 / max(error, 1e-9))))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without NNCF's notes, and without its progress bars, which it draws on stdout."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logger.setLevel(level)
