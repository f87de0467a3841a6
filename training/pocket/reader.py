"""The attribute reader: what does a picture show? A small convolutional network with one head an attribute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from ip2p_fast.errors import ModelError

from .data import Pairs
from .group_norm import keep_channels_last
from .loop import Run, load_average, train
from .parallel import world
from .scene import ATTRIBUTES
from .sizes import Size
from .vae import as_tensor, reconstruct

WIDTHS = (48, 96, 144, 192)
_RECONSTRUCTED = 4096


class Reader(nn.Module):
    """Pictures float [N, 3, S, S] in [-1, 1] -> logits [N, sum of the attributes' values], as `ATTRIBUTES` lists them.

    Position and count need to know where things are, so the last feature map (4x4) is flattened, not averaged.
    """

    def __init__(self, pixels: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.pixels, self.widths = pixels, widths
        strides = (pixels // 4).bit_length() - 1
        layers: list[nn.Module] = []
        previous = 3
        for level in range(strides):
            width = widths[min(level, len(widths) - 1)]
            layers += [
                *(nn.Conv2d(previous, width, 3, stride=2, padding=1), nn.GroupNorm(16, width), nn.SiLU()),
                *(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(16, width), nn.SiLU()),
            ]
            previous = width
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(previous * 16, 256)
        self.heads = nn.Linear(256, sum(map(len, ATTRIBUTES.values())))

    def forward(self, x: Tensor) -> Tensor:
        return self.heads(functional.silu(self.hidden(self.features(x).flatten(1))))


def train_reader(size: Size, pairs: Pairs, vae: AutoencoderKL, run: Run) -> Reader:
    """Trains on renders and, for a quarter of each batch, on the same renders through the autoencoder.

    The edits it will judge come out of that autoencoder, and must be read as well as a render. Brightness and contrast
    are jittered by a few per cent, so that a shade is no clue.
    """
    torch.manual_seed(run.seed)
    reader = keep_channels_last(Reader(size.pixels), run.device).train()
    pictures = pairs.pictures()
    labels = torch.from_numpy(pairs.labels.reshape(-1, pairs.labels.shape[-1]).astype(np.int64))
    decoded = reconstruct(vae, pictures[:_RECONSTRUCTED])

    def loss(rng: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pictures), (size.reader.batch // world(),), generator=rng)
        again = torch.randint(len(decoded), (size.reader.batch // 3 // world(),), generator=rng)
        x = as_tensor(np.concatenate([pictures[chosen.numpy()], decoded[again.numpy()]]), run.device)
        jitter = torch.rand(2, len(x), 1, 1, 1, generator=rng).to(run.device)
        logits = reader(x * (0.95 + 0.1 * jitter[0]) + 0.1 * (jitter[1] - 0.5)).float()
        target = torch.cat([labels[chosen], labels[again]]).to(run.device)
        losses = [functional.cross_entropy(part, target[:, i]) for i, part in enumerate(split_heads(logits))]
        return torch.stack(losses).sum()

    load_average(reader, train(reader, loss, size.reader, run))
    return reader.eval()


def split_heads(logits: Tensor) -> tuple[Tensor, ...]:
    """Logits by attribute, in the order of `ATTRIBUTES`."""
    return logits.split([len(values) for values in ATTRIBUTES.values()], dim=1)


@torch.no_grad()
def read(reader: Reader, pictures: np.ndarray, batch: int = 256) -> np.ndarray:
    """The value read of each attribute: uint8 pictures [N, S, S, 3] -> class indices uint8 [N, 8]."""
    device = next(reader.parameters()).device
    parts = []
    for i in range(0, len(pictures), batch):
        heads = split_heads(reader(as_tensor(pictures[i : i + batch], device)))
        parts.append(torch.stack([head.argmax(1) for head in heads], 1).cpu().numpy().astype(np.uint8))
    return np.concatenate(parts)


def accuracy(reader: Reader, pictures: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Share of pictures read right, by attribute. labels: [N, 8] class indices."""
    right = (read(reader, pictures) == labels).mean(0)
    return {name: float(share) for name, share in zip(ATTRIBUTES, right, strict=True)}


def save_reader(reader: Reader, folder: Path) -> None:
    """Writes config.json and model.safetensors (fp16)."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"pixels": reader.pixels, "widths": reader.widths}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = {name: value.detach().half().contiguous().cpu() for name, value in reader.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def load_reader(folder: Path, device: str = "cpu") -> Reader:
    """Reads what `save_reader` wrote, as fp32.

    Raises:
        ModelError: the folder lacks a file, or it holds another network.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        reader = Reader(config["pixels"], tuple(config["widths"]))
        reader.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        message = f"no attribute reader in {folder} ({error}); train one with `ip2p-fast train pocket reader`"
        raise ModelError(message) from error
    return reader.float().to(device).eval()
