"""A vision transformer without labels: the cosine of class tokens, and the distance of structures by keys."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ip2p_fast.errors import ModelError

from .preprocessing import feed_of, square

_LONGEST = 480 / 224
"""Of the longer side, in sides: Splice's limit of 480 pixels at a shorter side of 224."""


class Dino:
    """DINO (Caron et al. 2021), DINOv2, or any ViT in Hugging Face layout whose first token is a class token."""

    def __init__(self, model: str | Path, device: str = "cpu") -> None:
        """
        Args:
            model: a folder or hub id. MagicBrush's figures come from ViT-S/16, PIE-Bench's from ViT-B/8.

        Raises:
            ModelError: it cannot be loaded, or it has no class token or no attention keys.
        """
        from transformers import AutoModel

        try:
            self._model: Any = AutoModel.from_pretrained(str(model)).to(device).eval()
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"{model} is no vision transformer that can be loaded: {reason}") from error
        if not any(name.endswith("cls_token") for name, _ in self._model.named_parameters()):
            raise ModelError(f"{model} is a {self._model.config.model_type} model: it has no class token")
        self.name = str(model)
        self._keys = _last_keys(self._model, self.name)
        # ViT keeps to its own grid of positions unless it is told; DINOv2 always interpolates
        told = "interpolate_pos_encoding" in inspect.signature(self._model.forward).parameters
        self._any_size = {"interpolate_pos_encoding": True} if told else {}
        feed = feed_of(str(model))
        self.side = feed.side or int(self._model.config.image_size)
        self._device = torch.device(device)
        self._mean, self._std = (torch.tensor(value, device=device).view(3, 1, 1) for value in (feed.mean, feed.std))

    def cosine(self, a: np.ndarray, b: np.ndarray) -> float:
        """cos of the class tokens after the last norm, in [-1, 1] (DreamBooth's and MagicBrush's DINO).

        Pictures are [H, W, 3] uint8 of any sizes: the shorter side goes to 8/7 of the model's (256 for 224, bicubic),
        then the centre is cut out.
        """
        squares = [square(picture, self.side, self.side * 8 // 7) for picture in (a, b)]
        x = torch.stack([self._tensor(picture) / 255 for picture in squares])  # [2, 3, side, side]
        first, second = self._run(x).last_hidden_state[:, 0]
        return float(F.cosine_similarity(first, second, dim=0).clamp(-1, 1))

    def structure_distance(self, a: np.ndarray, b: np.ndarray, white: float = 1.0) -> float:
        """Mean of (S(a) - S(b))^2, S the matrix of cosines between the keys of all tokens in the last layer.

        Heads lie side by side in a key; the class token is one of the tokens (Splice, Tumanyan et al. 2022, equation 4,
        and its code). The shorter side goes to the model's, bilinear without antialiasing, the longer at most to
        480/224 of it.

        Args:
            a, b: [H, W, 3] uint8, of one size.
            white: the value of a white pixel before ImageNet's mean and deviation. Splice's is 1. PIE-Bench's script
                leaves pixels at 0..255, so that its published figures need 255.
        """
        first, second = (self._self_similarity(picture, white) for picture in (a, b))
        return float(F.mse_loss(first, second))

    def _self_similarity(self, picture: np.ndarray, white: float) -> Tensor:
        x = self._tensor(picture)[None] * (white / 255)
        x = F.interpolate(x, size=_short_to(picture.shape[:2], self.side), mode="bilinear", align_corners=False)
        kept: list[Tensor] = []
        hook = self._keys.register_forward_hook(lambda module, given, keys: kept.append(keys))
        try:
            self._run(x)
        finally:
            hook.remove()
        keys = F.normalize(kept[0][0], dim=-1)  # [T, D]
        return keys @ keys.T

    @torch.inference_mode()
    def _run(self, x: Tensor) -> Any:
        """x: [N, 3, H, W] before mean and deviation."""
        return self._model(pixel_values=(x - self._mean) / self._std, **self._any_size)

    def _tensor(self, picture: np.ndarray) -> Tensor:
        """[H, W, 3] uint8 -> [3, H, W] float32, 0..255"""
        return torch.tensor(picture, device=self._device, dtype=torch.float32).permute(2, 0, 1)


def _last_keys(model: nn.Module, name: str) -> nn.Module:
    """The projection to keys of the last layer: `key` in transformers 4, `k_proj` in 5."""
    found = [module for path, module in model.named_modules() if path.rsplit(".", 1)[-1] in ("key", "k_proj")]
    if not found:
        raise ModelError(f"{name} has no attention keys of its own: its structure cannot be compared")
    return found[-1]


def _short_to(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """(height, width) with a shorter side of `side`, both smaller again where the longer one is past the limit."""
    short, long = min(size), max(size)
    scale = min(side / short, side * _LONGEST / long)
    height, width = (max(1, int(edge * scale + 1e-6)) for edge in size)
    return height, width
