"""Small pairs to train on, and a recipe of seconds."""

import socket

from small_pairs import pair, picture

from ip2p_fast.training.trainer.recipe import Recipe

RECORDS = 40


def records(count=RECORDS, size=(16, 16)):
    return [
        pair(
            n,
            key=f"pair-{n}",
            seed=n,
            caption=f"a house, {n}",
            instruction=f"make it {n}",
            p=0.5,
            cfg=7.5,
            input_image=picture(2 * n, size),
            edited_image=picture(2 * n + 1, size),
        )
        for n in range(count)
    ]


def quick(**changes) -> Recipe:
    """Steps of 4 samples of 16x16; no sheets."""
    settings = dict(
        resolution=16, steps=4, batch=4, accumulation=1, lanes=4, buffer=16, held_out=0.1, save_every=2, sample_every=0
    )
    return Recipe(**{**settings, "learning_rate": 1e-3, "workers": 1, **changes})


def free_port() -> int:
    """A port for processes to meet at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
