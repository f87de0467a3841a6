"""The PyTorch backend: our UNet and kernels, diffusers' VAE and transformers' CLIP text tower, on a CPU or a GPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadInput, MissingExtra
from ..samplers import NoiseSchedule
from ..savings import ReusePlan
from ..sharing import SharingPlan
from . import EditStart, ModelInfo, StepPlan

try:
    import torch
except ImportError as error:
    raise MissingExtra("the torch backend", "torch") from error

from torch import Tensor

from ..cpu_packing import can_pack, pack
from ..cpu_threads import cpu_threads
from ..kernels import guided_step
from ..layers import replace_group_norms
from ..quantize import KINDS, quantize_unet
from ..transformer import KeysValues, SharedMaps
from ..unet import UNet
from .compiled import CompiledUNet
from .cuda_graph import Function, cuda_graphs
from .encoding import decode_picture, encode_picture, encode_text, flat, in_layers
from .reuse import exchange_deltas, predict
from .shared_attention import blend, share
from .step_tensors import EditState, Mask, RowInputs, StepNumbers, UNetInputs
from .torch_device import on_its_device, resolve_device, resolve_dtype, with_index
from .transfers import fetching, send

if TYPE_CHECKING:
    from ..checkpoints import Checkpoint

# Texts whose keys and values are kept: the null text serves every edit, an instruction often several.
TEXTS_KEPT = 16


def load(model: Any, device: str = "auto", dtype: str = "auto", compile: bool = False) -> tuple[TorchBackend, Any]:
    """A backend and its tokenizer from "pocket", a hub id, a folder, a single file, or a loaded Checkpoint."""
    from .. import checkpoints

    chosen = resolve_device(device)
    kind = dtype if dtype in KINDS else None  # of the layers that quantize.py names; all else computes in auto's dtype
    precision = resolve_dtype("auto" if kind else dtype, chosen)  # a wrong name is refused before gigabytes are read
    if chosen.type == "cpu" and torch.get_num_threads() > cpu_threads():  # never more than a program has set
        torch.set_num_threads(cpu_threads())
    checkpoint = model if isinstance(model, checkpoints.Checkpoint) else checkpoints.load(model)
    return TorchBackend(checkpoint, chosen, precision, quantize=kind, compile=compile), checkpoint.tokenizer


class TorchBackend:
    """On a GPU guided steps, the VAE and the text encoder are each one launch of a CUDA graph (`cuda_graph.py`).

    Steps that share maps, or with edits that reuse, are not captured.

    cuda_graph: False runs all of it as it is.
    shares_maps: edits may take attention maps from others (`sharing`).
    quantize: "int8" or "fp8" for 8-bit layers (`quantize.py`), which share no maps.
    compile: the UNet goes through torch.compile, but for steps that share maps or reuse; by inductor, or another
        backend of torch.compile's by name.
    """

    name = "torch"

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        cuda_graph: bool = True,
        shares_maps: bool = False,
        quantize: str | None = None,
        compile: bool | str = False,
    ) -> None:
        self._shares_maps, self.reuses_deep = shares_maps, not shares_maps
        device = with_index(device)
        self._device, self._dtype, self._on_gpu = device, dtype, device.type == "cuda"
        self.device, self.dtype = str(device), quantize or str(dtype).removeprefix("torch.")
        if quantize is not None and shares_maps:
            raise BadInput(f"quantize is {quantize!r} and attention maps are shared: choose one of the two")
        unet_config, vae_config = checkpoint.unet_config, dict(checkpoint.vae.config)
        vae_scale = 2 ** (len(vae_config["block_out_channels"]) - 1)
        levels = len(unet_config["block_out_channels"])
        defaults = {"size": vae_scale * (unet_config.get("sample_size") or 64)} | dict(checkpoint.defaults)
        self.info = ModelInfo(
            path=str(checkpoint.path or checkpoint.name),
            schedule=NoiseSchedule.from_config(checkpoint.scheduler_config),
            latent_channels=vae_config["latent_channels"],
            vae_scale=vae_scale,
            size_multiple=vae_scale * 2 ** (levels - 1),
            defaults=defaults,
            distilled=unet_config.get("time_cond_proj_dim") is not None,
        )
        self.unet = UNet.load(unet_config, checkpoint.unet_state, shares_maps).to(device=device, dtype=dtype)
        if quantize is not None:
            quantize_unet(self.unet, quantize)
        if not self._on_gpu and can_pack(dtype) and not compile:  # a compiler lays weights out itself
            pack(self.unet)
        how = {"backend": compile} if isinstance(compile, str) else {}
        self._compiled = CompiledUNet(self.unet, **how) if compile else None
        # nn.Module's own `to`: the libraries' overrides warn about a precision list that is empty for these models.
        place = partial(torch.nn.Module.to, device=device, dtype=dtype)
        self.vae = place(checkpoint.vae, memory_format=torch.channels_last).eval()
        replace_group_norms(self.vae)  # which on a GPU keep it channels-last
        self.text_encoder = place(checkpoint.text_encoder).eval()
        self._graphs = cuda_graphs(device) if cuda_graph and self._on_gpu else None
        self._copies = torch.cuda.Stream(device) if self._on_gpu else None
        self._tiles = False
        self._edits: dict[int, EditState] = {}
        self._texts: OrderedDict[bytes, list[KeysValues]] = OrderedDict()
        # by size, what the last step left: edits of several sizes take turns without undoing each other's work
        self._batches: dict[tuple[int, ...], tuple[tuple[int, ...], Tensor, Tensor]] = {}  # edits, x, history
        self._rows: dict[tuple[int, ...], tuple[tuple[int, ...], bytes, RowInputs]] = {}  # edits, conditions

    @property
    def compile_seconds(self) -> float:
        """Spent so far in torch.compile."""
        return self._compiled.seconds if self._compiled is not None else 0.0

    @on_its_device
    def start(self, edits: Mapping[int, EditStart]) -> None:
        encoded: dict[int, Tensor] = {}  # several edits of one picture encode it once
        for key, edit in edits.items():
            if edit.image is not None and id(edit.image) not in encoded:
                encoded[id(edit.image)] = self._encode(edit.image)
            latents = encoded.get(id(edit.image))
            noise = self._send(edit.noise)
            x = noise * edit.scale
            mask = None
            if edit.mask is not None and latents is not None:
                mask = Mask(self._send(edit.mask), latents.float() * self.vae.config.scaling_factor, noise)
            self._edits[key] = EditState(
                x=x,
                history=torch.zeros((2, *x.shape), device=self._device),
                image_latents=latents,
                texts=(self._text(edit.tokens[0]), self._text(edit.tokens[1])),
                mask=mask,
            )

    @on_its_device
    def step(self, plan: StepPlan) -> None:
        x, history = self._stacked(plan.edits)
        rows = self._row_inputs(plan)
        packed = self._send(StepNumbers.packed(plan))
        numbers = StepNumbers.unpacked(packed, len(rows.edit), x.shape)
        if plan.reuse is not None:
            x, history = self._reusing_step(x, history, rows, numbers, plan, plan.reuse)
        elif rows.shared is not None:
            x, history = self._guided_step(x, history, rows, numbers, None)
        else:
            step = partial(self._guided_step_of_tensors, plan.max_rows)
            inputs = (x, history, packed, rows.edit, rows.start, rows.images, *flat(rows.text))
            x, history = self._run(f"guided step, {plan.max_rows or 'all'} rows at once", step, *inputs)
        x = self._keep_outside_masks(plan.edits, x, numbers.levels)
        if plan.sharing is not None and plan.sharing.blendings:
            self._blend(plan.edits, x, rows, plan.sharing)
        self._batches[x.shape[1:]] = (plan.edits, x, history)
        for i, key in enumerate(plan.edits):
            self._edits[key].x, self._edits[key].history = x[i], history[i]

    @on_its_device
    def preview(self, edit: int) -> np.ndarray:
        return self._decode(self._edits[edit].history[0])()

    @on_its_device
    def finishing(self, edit: int) -> Callable[[], np.ndarray]:
        return self._decode(self._edits[edit].x)

    @on_its_device
    def latents(self, edit: int) -> np.ndarray:
        return fetching(self._edits[edit].x, self._copies)()

    def synchronize(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize(self._device)

    def drop(self, edits: Sequence[int]) -> None:
        for key in edits:
            self._edits.pop(key, None)
        self._batches.clear()  # they may hold tensors of edits that are gone
        self._rows.clear()

    def settle(self) -> None:
        """Nothing to do: PyTorch runs any shape as it comes, and a GPU's graphs are captured at its second call."""

    def save_memory(self) -> None:
        """From now on pictures are encoded and decoded in tiles of half the model's own size, and texts on the CPU.

        Tiles overlap by a quarter and are blended there. Each is normalised by itself, so the picture is not the same.
        Encoding and decoding are no longer captured: each would hold its own memory in the graphs' for good.
        """
        self._tiles = True
        self.vae.enable_tiling()
        self.vae.tile_sample_min_size = self.info.defaults["size"] // 2
        self.vae.tile_latent_min_size = self.vae.tile_sample_min_size // self.info.vae_scale
        self.text_encoder = torch.nn.Module.to(self.text_encoder, device="cpu")

    def _guided_step(
        self, x: Tensor, history: Tensor, rows: RowInputs, numbers: StepNumbers, max_rows: int | None
    ) -> tuple[Tensor, Tensor]:
        """UNet on R rows, their weighted sum, and the sampler's step."""
        inputs = self._unet_inputs(x, rows, numbers)
        count = len(inputs.latents)
        size = max_rows if max_rows and rows.shared is None else count
        parts = [slice(first, first + size) for first in range(0, count, size)] if size < count else [None]
        unet = self.unet if self._compiled is None or rows.shared is not None else self._compiled
        predictions = [unet(*inputs.of(part)) for part in parts]
        prediction = predictions[0] if len(predictions) == 1 else torch.cat(predictions)
        return guided_step(prediction, rows.start, numbers.weights, x, history, numbers.coefficients, numbers.noise)

    def _reusing_step(
        self, x: Tensor, history: Tensor, rows: RowInputs, numbers: StepNumbers, plan: StepPlan, reuse: ReusePlan
    ) -> tuple[Tensor, Tensor]:
        """`_guided_step` with what edits take from their own earlier steps."""
        inputs = self._unet_inputs(x, rows, numbers)
        kept = [self._edits[key].kept for key in plan.edits]

        def evaluate(some: list[int] | None, deep: Tensor | None) -> tuple[Tensor, Tensor]:
            indices = None if some is None else self._send(np.array(some))
            return self.unet.with_deep(*inputs.of(indices), deep)

        prediction = predict(evaluate, plan.rows, reuse, kept, None if rows.shared else plan.max_rows).to(x.dtype)
        exchange_deltas(prediction, numbers.weights, plan.rows, reuse, kept)
        return guided_step(prediction, rows.start, numbers.weights, x, history, numbers.coefficients, numbers.noise)

    def _unet_inputs(self, x: Tensor, rows: RowInputs, numbers: StepNumbers) -> UNetInputs:
        latents = x[rows.edit].to(self._dtype)  # [R, C, h, w]
        if rows.images is not None:
            latents = torch.cat([latents, rows.images], dim=1)  # [R, 2 C, h, w]
        return UNetInputs(latents, numbers.timesteps[rows.edit], rows.text, rows.shared, numbers.scales)

    def _guided_step_of_tensors(
        self,
        max_rows: int | None,
        x: Tensor,
        history: Tensor,
        packed: Tensor,
        edit: Tensor,
        start: Tensor,
        images: Tensor | None,
        *text: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """`_guided_step` on its inputs laid flat, as a graph takes them."""
        rows = RowInputs(edit, start, images, in_layers(text), shared=None)
        return self._guided_step(x, history, rows, StepNumbers.unpacked(packed, len(edit), x.shape), max_rows)

    def _run(self, name: str, function: Function, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        return function(*inputs) if self._graphs is None else self._graphs(name, function, *inputs)

    def _keep_outside_masks(self, edits: Sequence[int], x: Tensor, levels: Tensor) -> Tensor:
        for i, key in enumerate(edits):
            if (mask := self._edits[key].mask) is not None:
                x[i] = mask.blend(x[i], levels[i, 0], levels[i, 1])
        return x

    def _stacked(self, edits: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        states = [self._edits[key] for key in edits]
        if (last := self._batches.get(states[0].x.shape)) is not None and last[0] == edits:
            return last[1], last[2]
        return torch.stack([s.x for s in states]), torch.stack([s.history for s in states])

    def _blend(self, edits: tuple[int, ...], x: Tensor, rows: RowInputs, plan: SharingPlan) -> None:
        assert rows.shared is not None
        states = [self._edits[key] for key in edits]
        seen = blend(x, [state.attention for state in states], rows.shared.word_maps, plan)
        rows.shared.word_maps.clear()
        for state, attention in zip(states, seen, strict=True):
            state.attention = attention

    def _row_inputs(self, plan: StepPlan) -> RowInputs:
        size = self._edits[plan.edits[0]].x.shape
        conditions = plan.rows.conditions + (b"" if plan.sharing is None else plan.sharing.conditions)
        if size in self._rows and self._rows[size][:2] == (plan.edits, conditions):
            return self._rows[size][2]
        states = [self._edits[plan.edits[i]] for i in plan.rows.edit]
        texts = [state.texts[int(text)] for state, text in zip(states, plan.rows.text, strict=True)]
        shared: SharedMaps | None = None
        if self._shares_maps:
            shared, text = share(plan.sharing, texts, size[1:], self._device)
        else:
            text = [
                (torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer]))
                for layer in zip(*texts, strict=True)
            ]
        rows = RowInputs(
            edit=self._send(plan.rows.edit),
            start=self._send(plan.rows.row_start),
            images=self._images(states, plan.rows.image),
            text=text,
            shared=shared,
        )
        self._rows[size] = (plan.edits, conditions, rows)
        return rows

    def _images(self, states: Sequence[EditState], given: np.ndarray) -> Tensor | None:
        """The image condition of each row: [R, C, h, w]"""
        images = [state.image_latents for state in states if state.image_latents is not None]
        if len(images) < len(states):
            return None
        null = torch.zeros_like(images[0])
        return torch.stack([image if on else null for image, on in zip(images, given, strict=True)])

    def _encode(self, image: np.ndarray) -> Tensor:
        """[H, W, 3] uint8 -> [C, h, w]"""
        encode = partial(encode_picture, self.vae)
        pixels = self._send(image)
        return (encode(pixels) if self._tiles else self._run("encoding of a picture", encode, pixels))[0]

    def _decode(self, latents: Tensor) -> Callable[[], np.ndarray]:
        """[C, h, w] float32, scaled -> what waits for [H, W, 3] uint8"""
        decode = partial(decode_picture, self.vae)
        pixels = (decode(latents) if self._tiles else self._run("decoding of a picture", decode, latents))[0]
        return fetching(pixels, self._copies)

    def _text(self, tokens: np.ndarray) -> list[KeysValues]:
        name = tokens.tobytes()
        if name not in self._texts:
            encode = partial(encode_text, self.text_encoder, self.unet, self._device)
            ids = send(tokens, self.text_encoder.device)
            on_cpu = ids.device != self._device
            self._texts[name] = in_layers(encode(ids) if on_cpu else self._run("encoding of a text", encode, ids))
            while len(self._texts) > TEXTS_KEPT:
                self._texts.popitem(last=False)
        self._texts.move_to_end(name)
        return self._texts[name]

    def _send(self, array: np.ndarray) -> Tensor:
        return send(array, self._device)
