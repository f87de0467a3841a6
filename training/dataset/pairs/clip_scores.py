"""The four similarities by which pairs are filtered, with any CLIP in Hugging Face layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ip2p_fast.checkpoints import POCKET
from ip2p_fast.errors import ModelError

from ..forms.record import Similarities

# OpenAI's, for a folder that does not say
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_AT_ONCE = 64


class ClipScorer:
    """Cosines of a CLIP's embeddings of captions and pictures (InstructPix2Pix, section 3.1.2)."""

    def __init__(self, model: str | Path = "pocket", device: str = "cpu") -> None:
        """
        Args:
            model: "pocket", or a folder or hub id of a CLIP with its tokenizer, which may lie beside it as in a
                pipeline's folder.

        Raises:
            ModelError: it is no CLIP that can be loaded, or its tokenizer does not fit its text tower.
        """
        folder = str(POCKET / "clip" if model == "pocket" else model)
        self.name = str(model)
        self._clip, self._tokenizer = _load(folder, _tokenizer_of(folder))
        self._device = torch.device(device)
        # on a CPU the rounding depends on the number of threads: in float64 it does not reach a float32 cosine
        self._dtype = torch.float64 if self._device.type == "cpu" else torch.float32
        self._clip = self._clip.to(device=device, dtype=self._dtype).eval()
        self._mean, self._std = (
            torch.tensor(value, device=device, dtype=self._dtype).view(3, 1, 1) for value in _feed(folder)
        )

    @property
    def side(self) -> int:
        """Of the pictures that it looks at, in pixels."""
        return int(self._clip.config.vision_config.image_size)

    def score(
        self, captions: tuple[str, str], before: Sequence[np.ndarray], after: Sequence[np.ndarray]
    ) -> list[Similarities]:
        """The similarities of N pairs of one caption pair; pictures are [H, W, 3] uint8."""
        texts = self.embed_texts(captions)  # [2, D]
        first, second = self.embed_pictures(before), self.embed_pictures(after)  # [N, D]
        values = torch.stack(
            [
                first @ texts[0],
                second @ texts[1],
                F.cosine_similarity(second - first, (texts[1] - texts[0])[None]),
                (first * second).sum(-1),
            ],
            dim=1,
        )
        return [Similarities(*row) for row in values.clamp(-1, 1).float().tolist()]

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts, [N, D]; cut at the length of the text tower."""
        words = self._tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self._clip.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        return _unit(self._clip.get_text_features(words.input_ids.to(self._device)))

    @torch.inference_mode()
    def embed_pictures(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Unit vectors of pictures [H, W, 3] uint8, bicubic at the size of the picture tower: [N, D]."""
        side = self.side
        parts = []
        for first in range(0, len(pictures), _AT_ONCE):
            x = torch.from_numpy(np.stack(pictures[first : first + _AT_ONCE])).to(self._device)
            x = x.permute(0, 3, 1, 2).to(self._dtype) / 255  # [N, 3, H, W]
            if x.shape[-2:] != (side, side):
                x = F.interpolate(x, size=(side, side), mode="bicubic", align_corners=False)
            parts.append(_unit(self._clip.get_image_features((x - self._mean) / self._std)))
        return torch.cat(parts)


def _load(folder: str, words: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer, CLIPModel

    try:
        kind = AutoConfig.from_pretrained(folder).model_type
        if kind != "clip":
            raise ModelError(f"{folder} is a {kind} model, not a CLIP: similarities need both of CLIP's towers")
        clip: Any = CLIPModel.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(words)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{folder} is no CLIP with a tokenizer that can be loaded: {reason}") from error
    if len(tokenizer) > clip.config.text_config.vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the text tower {clip.config.text_config.vocab_size}"
        )
    return clip, tokenizer


def _tokenizer_of(folder: str) -> str:
    beside = Path(folder).parent / "tokenizer"
    return str(beside) if not (Path(folder) / "tokenizer_config.json").exists() and beside.is_dir() else folder


def _feed(folder: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation that pictures are given with."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(folder, "preprocessor_config.json")
        config = json.loads(Path(str(path)).read_text(encoding="utf-8"))
    except OSError:
        return _MEAN, _STD
    return config.get("image_mean", _MEAN), config.get("image_std", _STD)


def _unit(features: Any) -> Tensor:
    # transformers 5 gives an output object, earlier versions the tensor
    return F.normalize(getattr(features, "pooler_output", features), dim=-1)
