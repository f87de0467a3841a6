"""A size so small that every stage of the training runs in a second."""

from dataclasses import replace

from ip2p_fast.training.pocket.sizes import SIZES, Stage

STEPS = 6
_STAGE = Stage(steps=STEPS, batch=4, learning_rate=1e-3, warmup=2)
TINY = replace(
    SIZES["cpu64"],
    name="tiny",
    pixels=16,
    pairs=8,
    unet_pairs=6,
    vae_widths=(16, 32, 32),
    unet_widths=(32, 64),
    unet_attention=(False, True),
    text_width=32,
    vae=_STAGE,
    reader=_STAGE,
    clip=_STAGE,
    unet=_STAGE,
)
