"""Less memory for time: rows one by one, the autoencoder in tiles, the text encoder off the GPU."""

import numpy as np
import pytest

from ip2p_fast import BadInput, Editor
from ip2p_fast.checkpoints import POCKET
from ip2p_fast.cli import main
from ip2p_fast.serving.engine_options import EngineOptions, start_engine

SAMPLE = POCKET / "samples" / "meadow_cat.png"


@pytest.fixture(scope="module")
def editor():
    return Editor.from_pretrained("pocket", low_memory=True)


def test_it_runs_rows_one_by_one_and_tiles(editor):
    assert editor.backend.name == "torch" and editor.max_rows == 1
    assert editor.backend.vae.use_tiling
    assert editor.backend.vae.tile_sample_min_size == 32  # half of the model's own size
    assert editor.backend.vae.tile_latent_min_size * editor.backend.info.vae_scale == 32


def test_the_picture_is_nearly_the_same(editor):
    plain = Editor.from_pretrained("pocket", "torch", dtype=editor.backend.dtype)
    ours, other = (
        np.asarray(one.edit(SAMPLE, "make it night", steps=8, seed=1).images[0], float) for one in (editor, plain)
    )
    psnr = 10 * np.log10(255**2 / np.square(ours - other).mean())
    assert 25 < psnr < 90  # and it is not the untiled one


def test_max_rows_of_ones_own_is_kept():
    assert Editor.from_pretrained("pocket", low_memory=True, max_rows=2).max_rows == 2


def test_other_backends_refuse_it_before_they_load():
    with pytest.raises(BadInput, match="low_memory is for the torch backend, not onnx: there, max_rows"):
        Editor.from_pretrained("no such model", "onnx", low_memory=True)


def test_a_server_evaluates_rows_one_by_one_however_many_are_in_flight():
    engine = start_engine(EngineOptions(low_memory=True, max_rows=12, warm_up=False))
    try:
        assert engine._loop.max_rows == 1 and engine.policy.max_rows == 12
        assert engine.editor.backend.vae.use_tiling
    finally:
        engine.stop()


def test_the_command_takes_it(tmp_path):
    out = tmp_path / "out.png"
    assert main(["edit", str(SAMPLE), "-p", "make it night", "-o", str(out), "--steps", "2", "--low-memory"]) == 0
    assert out.exists()
