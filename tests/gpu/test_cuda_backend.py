"""The torch backend on a CUDA device: the same edits as on the CPU, with and without CUDA graphs."""

import numpy as np
import pytest
import torch

from ip2p_fast import Editor, EditRequest

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def editors(tiny_pipeline):
    from ip2p_fast.backends.torch_backend import TorchBackend
    from ip2p_fast.checkpoints import from_pipeline

    checkpoint = from_pipeline(tiny_pipeline)
    return {
        graph: Editor(TorchBackend(checkpoint, torch.device("cuda"), torch.float32, graph), checkpoint.tokenizer)
        for graph in (False, True)
    }


def requests(pictures):
    return [
        EditRequest(pictures[0], "make it night", steps=8, seed=1, size=16),
        EditRequest(pictures[3], "add 3 trees", steps=4, seed=2, size=16, text_guidance=1.0, image_guidance=1.0),
        EditRequest(pictures[1], "dog", steps=6, seed=3, size=24, sampler="dpmpp_2m"),
    ]


@pytest.mark.parametrize("graph", [False, True])
def test_an_edit_is_the_cpus_within_float32(editors, tiny_editor, pictures, graph):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for ours, cpu in zip(
        editors[graph].edit_many(requests(pictures)), tiny_editor.edit_many(requests(pictures)), strict=True
    ):
        assert np.linalg.norm(ours.latents - cpu.latents) <= 1e-3 * np.linalg.norm(cpu.latents)


def test_a_graph_is_captured_once_for_each_set_of_shapes(editors, pictures):
    graphed = editors[True].backend._graphed
    graphed._captured.clear()
    editors[True].edit(pictures[0], "make it night", steps=5, size=16)
    editors[True].edit(pictures[3], "dog", steps=3, size=16)
    assert len(graphed._captured) == 1
    editors[True].edit(pictures[0], "make it night", steps=2, size=16, image_guidance=1.0)
    assert len(graphed._captured) == 2


def test_no_step_waits_for_the_device(editors, pictures):
    torch.cuda.synchronize()

    def watch(progress):
        if progress.step == 2:  # the first steps capture, and send what does not change
            torch.cuda.set_sync_debug_mode("error")
        elif progress.step == progress.steps:
            torch.cuda.set_sync_debug_mode("default")

    try:
        editors[True].edit(pictures[0], "make it night", steps=8, seed=1, size=16, on_step=watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_low_memory_keeps_the_text_encoder_off_the_device(tiny_model, pictures):
    editor = Editor.from_pretrained(tiny_model, device="cuda", low_memory=True)
    assert editor.backend.text_encoder.device.type == "cpu"
    editor.edit(pictures[0], "make it night", steps=2, seed=1, size=16)
