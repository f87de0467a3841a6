"""The pocket model's sizes: one row each. Every trainer reads its row here and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from ip2p_fast.errors import BadInput


@dataclass(frozen=True)
class Stage:
    """How one component trains: warm-up, then a cosine to zero at the last step.

    muon: matrices are trained by Muon and the rest by AdamW; otherwise AdamW trains all.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 100
    ema: float = 0.999
    muon: bool = False


@dataclass(frozen=True)
class PaperData:
    """Pairs by the paper's route: how many captions are written to, and how many pairs are kept.

    samples: drawn of a triplet, each in so many steps, and how many of them are kept at most.
    """

    captions: int
    pairs: int
    samples: int = 4
    most: int = 2
    steps: int = 20


@dataclass(frozen=True)
class Size:
    """One row: picture side in pixels, pairs to render, the networks' widths from fine to coarse, and their training.

    The autoencoder halves the side once less than it has widths. `unet_attention` says at which levels the UNet attends
    to the text (and to itself). The guidance scales are those that suited the trained models best; the text-to-image
    model's is a range, from which each pair of pictures draws its own. The writer is a GPT-2 of `writer_layers` blocks,
    finetuned for more epochs than the paper's one, as it has read so little. `paper` is the training by the paper's
    route, `ablation` that of each model of figure 10.
    """

    name: str
    pixels: int
    pairs: int
    vae_widths: tuple[int, ...]
    unet_widths: tuple[int, ...]
    unet_attention: tuple[bool, ...]
    text_width: int
    patch: int
    vae: Stage
    reader: Stage
    clip: Stage
    unet: Stage
    decoder: Stage
    base: Stage
    student: Stage
    few: Stage
    writer: Stage
    paper_data: PaperData
    paper: Stage
    ablation: Stage
    writer_width: int = 192
    writer_layers: int = 5
    writer_epochs: float = 12.0
    text_guidance: float = 2.0
    image_guidance: float = 1.5
    base_guidance: tuple[float, float] = (1.5, 3.0)

    @property
    def latents(self) -> int:
        """Side of the latents."""
        return self.pixels // 2 ** (len(self.vae_widths) - 1)


# pictures of any size have the same captions
_WRITER = Stage(steps=3_500, batch=32, learning_rate=3e-3, muon=True)

SIZES = {
    size.name: size
    for size in (
        Size(
            name="cpu64",
            pixels=64,
            pairs=40_960,
            vae_widths=(32, 64, 128),
            unet_widths=(64, 128, 192),
            unet_attention=(False, True, True),
            text_width=128,
            patch=8,
            vae=Stage(steps=4_000, batch=16, learning_rate=1e-3),
            reader=Stage(steps=1_500, batch=64, learning_rate=2e-3),
            clip=Stage(steps=1_000, batch=128, learning_rate=1e-3),
            unet=Stage(steps=10_000, batch=64, learning_rate=1.2e-3, warmup=200, muon=True),
            decoder=Stage(steps=3_000, batch=16, learning_rate=5e-4),
            base=Stage(steps=10_000, batch=64, learning_rate=1.2e-3, warmup=200, muon=True),
            student=Stage(steps=4_000, batch=32, learning_rate=3e-4, ema=0.998),
            few=Stage(steps=600, batch=32, learning_rate=2e-4, warmup=20, ema=0.98),
            writer=_WRITER,
            paper_data=PaperData(captions=3_000, pairs=3_000),
            paper=Stage(steps=1_500, batch=32, learning_rate=6e-4, muon=True),
            ablation=Stage(steps=1_000, batch=32, learning_rate=6e-4, muon=True),
        ),
        Size(
            name="gpu128",
            pixels=128,
            pairs=24_576,
            vae_widths=(32, 64, 128, 128),
            unet_widths=(64, 128, 192),
            unet_attention=(False, True, True),
            text_width=128,
            patch=16,
            vae=Stage(steps=6_000, batch=64, learning_rate=1e-3),
            reader=Stage(steps=1_500, batch=128, learning_rate=2e-3),
            clip=Stage(steps=1_500, batch=256, learning_rate=1e-3),
            unet=Stage(steps=20_000, batch=128, learning_rate=1.2e-3, warmup=300, ema=0.9995, muon=True),
            decoder=Stage(steps=4_000, batch=64, learning_rate=5e-4),
            base=Stage(steps=20_000, batch=128, learning_rate=1.2e-3, warmup=300, ema=0.9995, muon=True),
            student=Stage(steps=4_000, batch=64, learning_rate=3e-4, ema=0.998),
            few=Stage(steps=2_000, batch=64, learning_rate=2e-4, ema=0.99),
            writer=_WRITER,
            paper_data=PaperData(captions=40_000, pairs=50_000, steps=25),
            paper=Stage(steps=20_000, batch=128, learning_rate=6e-4, muon=True),
            ablation=Stage(steps=4_000, batch=128, learning_rate=6e-4, muon=True),
        ),
        Size(
            name="gpu256",
            pixels=256,
            pairs=16_384,
            vae_widths=(32, 64, 128, 128),
            unet_widths=(64, 128, 192),
            unet_attention=(False, True, True),
            text_width=128,
            patch=32,
            vae=Stage(steps=8_000, batch=32, learning_rate=1e-3),
            reader=Stage(steps=1_500, batch=64, learning_rate=2e-3),
            clip=Stage(steps=1_500, batch=128, learning_rate=1e-3),
            unet=Stage(steps=20_000, batch=64, learning_rate=1.2e-3, warmup=300, ema=0.9995, muon=True),
            decoder=Stage(steps=4_000, batch=64, learning_rate=5e-4),
            base=Stage(steps=20_000, batch=64, learning_rate=1.2e-3, warmup=300, ema=0.9995, muon=True),
            student=Stage(steps=4_000, batch=64, learning_rate=3e-4, ema=0.998),
            few=Stage(steps=2_000, batch=64, learning_rate=2e-4, ema=0.99),
            writer=_WRITER,
            paper_data=PaperData(captions=40_000, pairs=50_000, steps=25),
            paper=Stage(steps=20_000, batch=64, learning_rate=6e-4, muon=True),
            ablation=Stage(steps=4_000, batch=64, learning_rate=6e-4, muon=True),
        ),
        # no model: every command and test in seconds
        Size(
            name="tiny",
            pixels=16,
            pairs=64,
            vae_widths=(16, 32, 32),
            unet_widths=(32, 64),
            unet_attention=(False, True),
            text_width=32,
            patch=8,
            vae=Stage(steps=6, batch=4, learning_rate=1e-3, warmup=2),
            reader=Stage(steps=6, batch=4, learning_rate=1e-3, warmup=2),
            clip=Stage(steps=6, batch=4, learning_rate=1e-3, warmup=2),
            unet=Stage(steps=6, batch=4, learning_rate=1e-3, warmup=2, muon=True),
            decoder=Stage(steps=6, batch=4, learning_rate=5e-4, warmup=2),
            base=Stage(steps=6, batch=4, learning_rate=1e-3, warmup=2, muon=True),
            student=Stage(steps=6, batch=4, learning_rate=1e-3, warmup=2),
            few=Stage(steps=6, batch=4, learning_rate=1e-3, warmup=2),
            writer=Stage(steps=6, batch=4, learning_rate=1e-3, warmup=2, muon=True),
            paper_data=PaperData(captions=24, pairs=4, steps=2),
            paper=Stage(steps=6, batch=4, learning_rate=1e-3, warmup=2, muon=True),
            ablation=Stage(steps=6, batch=4, learning_rate=1e-3, warmup=2, muon=True),
            writer_width=32,
            writer_layers=1,
            writer_epochs=0.1,
        ),
    )
}


def size_named(name: str) -> Size:
    """The row of that name.

    Raises:
        BadInput: there is no such row.
    """
    if name not in SIZES:
        raise BadInput(f"there is no pocket size {name!r}; choose one of {', '.join(SIZES)}")
    return SIZES[name]
