"""The torch backend on a CUDA device: the same edits as on the CPU, with and without CUDA graphs."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ip2p_fast import Editor, EditRequest
from ip2p_fast.backends.cuda_graph import CudaGraphs, CudaRecorder, GraphBounds

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
    graphs = editors[True].backend._graphs
    graphs.clear()
    editors[True].edit(pictures[0], "make it night", steps=5, size=16)
    editors[True].edit(pictures[3], "dog", steps=3, size=16)
    steps = [key for key in graphs._graphs if "guided step" in key[0]]
    assert len(steps) == 1
    editors[True].edit(pictures[0], "make it night", steps=3, size=16, image_guidance=1.0)
    steps = [key for key in graphs._graphs if "guided step" in key[0]]
    assert len(steps) == 2


def test_pictures_and_texts_go_through_graphs_too(editors, pictures):
    editors[True].warm_up([(16, 16)])
    names = {key[0] for key in editors[True].backend._graphs._graphs}
    assert {"encoding of a picture", "decoding of a picture", "encoding of a text"} <= names


def test_edits_through_graphs_are_those_without_again_and_again(editors, pictures):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for _ in range(4):
        graphed, plain = (editors[graph].edit_many(requests(pictures)) for graph in (True, False))
        for one, other in zip(graphed, plain, strict=True):
            assert np.linalg.norm(one.latents - other.latents) <= 1e-3 * np.linalg.norm(other.latents)
            difference = np.abs(np.asarray(one.images[0], int) - np.asarray(other.images[0]))
            assert (difference <= 2).mean() >= 0.99


def test_another_thread_edits_on_the_device_of_the_one_that_loaded(editors, pictures):
    backend = editors[True].backend
    assert backend.device == f"cuda:{torch.cuda.current_device()}"
    with ThreadPoolExecutor(1) as thread:
        there = thread.submit(editors[True].edit, pictures[0], "dog", steps=4, seed=5, size=16).result()
    here = editors[True].edit(pictures[0], "dog", steps=4, seed=5, size=16)
    np.testing.assert_allclose(there.latents, here.latents, rtol=1e-3, atol=1e-3)


def test_graphs_stay_within_their_memory(editors, pictures):
    backend = editors[True].backend
    graphs = backend._graphs
    graphs.clear()
    editors[True].warm_up([(16, 16), (24, 16), (32, 32)])
    held = graphs.nbytes
    assert len(graphs) > 3 and held > 0
    backend._graphs = CudaGraphs(CudaRecorder(torch.device(backend.device)), GraphBounds(64, held // 2))
    try:
        editors[True].warm_up([(16, 16), (24, 16), (32, 32)])
        assert backend._graphs.nbytes <= held // 2
    finally:
        backend._graphs = graphs


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("settings", [{}, {"guidance_refresh": 2}, {"deep_refresh": 2}], ids=str)
def test_no_step_waits_for_the_device(editors, pictures, graph, settings):
    torch.cuda.synchronize()

    def watch(progress):
        if progress.step == 6:  # the first steps choose and capture, those of each kind twice
            torch.cuda.set_sync_debug_mode("error")
        elif progress.step == progress.steps:
            torch.cuda.set_sync_debug_mode("default")

    try:
        editors[graph].edit(pictures[0], "make it night", steps=12, seed=1, size=16, on_step=watch, **settings)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_low_memory_keeps_the_text_encoder_off_the_device(tiny_model, pictures):
    editor = Editor.from_pretrained(tiny_model, device="cuda", low_memory=True)
    assert editor.backend.text_encoder.device.type == "cpu"
    editor.edit(pictures[0], "make it night", steps=2, seed=1, size=16)
