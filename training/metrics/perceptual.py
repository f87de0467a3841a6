"""LPIPS with SqueezeNet, the one PIE-Bench is measured with, in plain PyTorch.

The libraries that bring LPIPS take its backbone from torchvision and download that network's weights. Here the backbone
is given as a file, and the weights of the comparison come with torchmetrics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ip2p_fast.errors import MissingExtra, ModelError

from .pixels import masked

# Layers of `features` whose outputs are compared.
_TAPS = (1, 4, 7, 9, 10, 11, 12)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018, equation 1), version 0.1, SqueezeNet 1.1."""

    def __init__(self, weights: str | Path, device: str = "cpu") -> None:
        """
        Args:
            weights: torchvision's SqueezeNet 1.1 trained on ImageNet (squeezenet1_1-b8a52dc0.pth), as .pth or
                .safetensors.

        Raises:
            ModelError: the file cannot be read, or holds another network.
            MissingExtra: torchmetrics is absent.
        """
        self.name = str(weights)
        self._device = torch.device(device)
        self._features = squeezenet_features()
        found = _read(Path(weights))
        features = {name.removeprefix("features."): value for name, value in found.items() if "classifier" not in name}
        try:
            self._features.load_state_dict(features)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"{weights} does not hold SqueezeNet 1.1: {reason}") from error
        self._features.to(device).eval()
        self._heads = [head.to(device) for head in _heads()]
        self._shift, self._scale = (torch.tensor(value, device=device).view(3, 1, 1) for value in (_SHIFT, _SCALE))

    def distance(self, a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None, where: str = "outside") -> float:
        """sum over layers of the mean over places of w . (f(a) - f(b))^2, f of unit length along the channels.

        Args:
            a, b: [H, W, 3] uint8 of one size, at least 17x17.
            mask, where: see `pixels.masked`.

        Raises:
            BadInput: the mask does not fit.
        """
        x = torch.stack([self._tensor(masked(picture, mask, where)) for picture in (a, b)])  # [2, 3, H, W]
        return float(self._compare(x))

    @torch.inference_mode()
    def _compare(self, x: Tensor) -> Tensor:
        total = torch.zeros((), device=self._device)
        heads = iter(self._heads)
        for index, layer in enumerate(self._features):
            x = layer(x)
            if index in _TAPS:
                unit = x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt()
                change = (unit[0] - unit[1]).square()  # [C, h, w]
                total = total + (change * next(heads)).sum(0).mean()
        return total

    def _tensor(self, picture: np.ndarray) -> Tensor:
        x = torch.tensor(picture, device=self._device, dtype=torch.float32).permute(2, 0, 1)
        return (x / 127.5 - 1 - self._shift) / self._scale


class Fire(nn.Module):
    """SqueezeNet's module (Iandola et al. 2016, section 3.1): few channels, then 1x1 and 3x3 side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(x))
        return functional.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


def squeezenet_features() -> nn.Sequential:
    """SqueezeNet 1.1 without its classifier; layers and names of weights as in torchvision's `features`."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    return nn.Sequential(
        *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool()),
        *(Fire(64, 16, 64), Fire(128, 16, 64), pool()),
        *(Fire(128, 32, 128), Fire(256, 32, 128), pool()),
        *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
    )


def _heads() -> list[Tensor]:
    """The learned weights of channels, [C, 1, 1] a layer."""
    try:
        import torchmetrics
    except ImportError as error:
        raise MissingExtra("LPIPS", "train") from error
    path = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "squeeze.pth"
    found = _read(path)
    return [found[f"lin{index}.model.1.weight"][0] for index in range(len(_TAPS))]


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged files raises almost any type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{path} cannot be read as weights: {reason}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds {type(found).__name__}, not weights by name")
    return found
