"""torch.compile as an option: the UNet is compiled whole, our operators stay in it, and the time it takes is told."""

import numpy as np
import pytest
import torch

from ip2p_fast import BadInput, Editor
from ip2p_fast.backends import compiled
from ip2p_fast.backends.compiled import CompiledUNet
from ip2p_fast.backends.torch_backend import TorchBackend
from ip2p_fast.checkpoints import from_pipeline


@pytest.fixture(scope="module")
def editor(tiny_pipeline):
    """Compiled by a backend that runs what it is given."""
    checkpoint = from_pipeline(tiny_pipeline)
    backend = TorchBackend(checkpoint, torch.device("cpu"), torch.float32, compile="eager")
    return Editor(backend, checkpoint.tokenizer)


def test_edits_are_those_of_the_unet_as_it_is(editor, tiny_editor, pictures):
    settings = {"steps": 4, "seed": 1, "size": 16}
    ours, plain = (one.edit(pictures[0], "make it night", **settings) for one in (editor, tiny_editor))
    assert np.linalg.norm(ours.latents - plain.latents) <= 1e-4 * np.linalg.norm(plain.latents)


def test_the_time_to_compile_is_told_where_it_was_spent(editor, pictures):
    first, again = (editor.edit(pictures[1], "dog", steps=2, size=24, num_images=2).timings for _ in range(2))
    assert 0 < first["compile"] < first["denoise"]
    assert "compile" not in again


def test_what_has_been_compiled_is_not_compiled_again_for_other_edits(editor, pictures):
    editor.warm_up([(16, 16)], steps=1)
    assert "compile" not in editor.edit(pictures[0], "make it night", steps=2, size=16, seed=7).timings


def test_it_is_one_graph_with_our_operators_in_it(editor):
    unet, graphs = editor.backend.unet, []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    whole = CompiledUNet(unet, backend=keep)
    text = unet.text_keys_values(torch.randn(3, 77, 32))
    with torch.inference_mode():
        whole(torch.randn(3, 8, 8, 8), torch.full((3,), 500.0), text, None, torch.ones(3, 2))
    assert len(graphs) == 1
    targets = [str(node.target) for node in graphs[0].graph.nodes]
    norms = sum(type(module).__name__ == "GroupNorm" for module in unet.modules())
    assert sum("ip2p_fast.group_norm_silu" in target for target in targets) == norms


def test_beyond_a_number_of_shapes_the_unet_runs_as_it_is(editor, monkeypatch):
    monkeypatch.setattr(compiled, "SHAPES_COMPILED", 1)
    unet, calls = editor.backend.unet, []
    whole = CompiledUNet(unet, backend="eager")
    monkeypatch.setattr(whole, "_compiled", lambda *inputs: calls.append(len(inputs[0])) or unet(*inputs))
    for rows in (2, 3, 2):
        text = unet.text_keys_values(torch.randn(rows, 77, 32))
        whole(torch.randn(rows, 8, 8, 8), torch.full((rows,), 500.0), text, None, torch.ones(rows, 2))
    assert calls == [2, 2]


def test_other_backends_refuse_it_before_they_load():
    with pytest.raises(BadInput, match="compile is for the torch backend, not onnx"):
        Editor.from_pretrained("no such model", "onnx", compile=True)


@pytest.mark.slow
def test_inductor_compiles_it(tiny_model, tiny_editor, pictures):
    editor = Editor.from_pretrained(tiny_model, device="cpu", dtype="float32", compile=True)
    settings = {"steps": 3, "seed": 1, "size": 16}
    ours, plain = (one.edit(pictures[0], "make it night", **settings) for one in (editor, tiny_editor))
    assert np.linalg.norm(ours.latents - plain.latents) <= 1e-3 * np.linalg.norm(plain.latents)
