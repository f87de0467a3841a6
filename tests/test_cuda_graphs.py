"""Which functions run through graphs, what is kept of them, and that results are those without: with no GPU."""

import numpy as np
import pytest
import torch

from ip2p_fast import Editor, EditRequest
from ip2p_fast.backends import cuda_graph
from ip2p_fast.backends.cuda_graph import CudaGraphs, GraphBounds, Recording
from ip2p_fast.backends.torch_backend import TorchBackend
from ip2p_fast.checkpoints import from_pipeline

BOUNDS = GraphBounds(graphs=64, nbytes=2**40)


class ReplayedByCalling:
    """In the place of CUDA's recorder: a replay calls the function on what was recorded, and fills the same outputs."""

    def __init__(self, nbytes=lambda: 0):
        self.records, self.replays, self.renewals = 0, 0, 0
        self._nbytes = nbytes

    def record(self, function, inputs):
        self.records += 1
        outputs = function(*inputs)

        def replay():
            self.replays += 1
            for output, new in zip(outputs, function(*inputs), strict=True):
                output.copy_(new)

        return Recording(replay, outputs)

    def nbytes(self):
        return self._nbytes()

    def renew(self):
        self.renewals += 1


def double(x, y=None):
    return (2 * x if y is None else 2 * x + y,)


@pytest.fixture
def recorder():
    return ReplayedByCalling()


@pytest.fixture
def graphs(recorder):
    return CudaGraphs(recorder, BOUNDS)


def of(*values):
    return torch.tensor(values, dtype=torch.float32)


def test_shapes_are_captured_at_their_second_call(graphs, recorder):
    for _ in range(2):
        for x in (of(1), of(2), of(3)):
            assert graphs("double", double, x)[0] == 2 * x
    assert (recorder.records, recorder.replays) == (1, 5)
    graphs("double", double, of(1, 2))
    graphs("double", double, of(1).double())
    graphs("other", double, of(1))
    assert len(graphs) == 1


def test_results_are_changed_by_no_later_call(graphs):
    results = [graphs("double", double, of(i))[0] for i in range(5)]
    assert torch.cat(results).tolist() == [0, 2, 4, 6, 8]


def test_an_input_is_copied_unless_it_is_the_same_object(graphs):
    x, y = of(1), of(10)
    for _ in range(2):
        graphs("double", double, x, y)
    graph = next(iter(graphs._graphs.values()))
    graph.inputs[1].memory.fill_(100)  # to be seen where y is not copied again
    assert graphs("double", double, of(2), y)[0] == 104
    assert graphs("double", double, of(2), y.clone())[0] == 14
    assert graphs("double", double, of(2), y)[0] == 14


def test_an_input_may_be_absent(graphs):
    for _ in range(3):
        assert graphs("double", double, of(1), None)[0] == 2
        assert graphs("double", double, of(1), of(3))[0] == 5
    assert len(graphs) == 2


def test_inputs_that_differ_in_rows_share_memory(graphs):
    batches = [torch.randn(rows, 5) for rows in (4, 1, 2, 4, 3)]
    for _ in range(3):
        for batch in batches:
            torch.testing.assert_close(graphs("double", double, batch)[0], 2 * batch)
    assert len(graphs) == 4
    assert graphs.nbytes == 4 * 5 * 4  # those of the largest


def test_the_graph_that_was_not_used_for_longest_goes(recorder):
    graphs = CudaGraphs(recorder, GraphBounds(graphs=2, nbytes=2**40))
    a, b, c = (torch.ones(n) for n in (1, 2, 3))
    for x in (a, a, b, b, a, c, c):
        graphs("double", double, x)
    assert len(graphs) == 2 and recorder.records == 3
    graphs("double", double, a)
    assert recorder.records == 3
    graphs("double", double, b)
    assert recorder.records == 4


def test_what_takes_too_much_memory_alone_is_not_captured_again():
    recorder = ReplayedByCalling(nbytes=lambda: 2000)
    graphs = CudaGraphs(recorder, GraphBounds(graphs=8, nbytes=1000))
    for i in range(5):
        assert graphs("double", double, of(i))[0] == 2 * i
    assert (recorder.records, recorder.renewals, len(graphs)) == (1, 1, 0)


def test_what_takes_too_much_memory_beside_others_is_captured_without_them():
    recorder = ReplayedByCalling(nbytes=lambda: 600 * len(graphs))
    graphs = CudaGraphs(recorder, GraphBounds(graphs=8, nbytes=1000))
    a, b = torch.ones(1), torch.ones(2)
    for x in (a, a, b, b, b, b):
        graphs("double", double, x)
    assert recorder.renewals == 1 and recorder.records == 3
    assert [key[1][0] for key in graphs._graphs] == [b.shape]


def test_shapes_that_push_each_other_out_stop_capturing(recorder):
    graphs = CudaGraphs(recorder, GraphBounds(graphs=1, nbytes=2**40))
    for _ in range(20):
        for x in (torch.ones(1), torch.ones(2)):
            torch.testing.assert_close(graphs("double", double, x)[0], 2 * x)
    assert recorder.records == 2 * cuda_graph._MOST_CAPTURES


class Fails(ReplayedByCalling):
    def record(self, function, inputs):
        if len(inputs[0]) == 3:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return super().record(function, inputs)


def test_what_cannot_be_captured_runs_as_it_is_and_is_told_once():
    graphs = CudaGraphs(Fails(), BOUNDS)
    for _ in range(2):
        graphs("double", double, torch.ones(2))
    graphs("double", double, torch.ones(3))
    with pytest.warns(UserWarning, match="double runs without a CUDA graph .*: operation not permitted"):
        assert graphs("double", double, torch.ones(3))[0].tolist() == [2, 2, 2]
    assert len(graphs) == 0  # their memory may be in any state
    assert graphs("double", double, torch.ones(3))[0].tolist() == [2, 2, 2]  # warnings are errors here
    graphs("double", double, torch.ones(2))
    assert len(graphs) == 1


def test_a_graph_of_no_inputs_to_copy_is_replayed(graphs, recorder):
    x = of(1)
    for _ in range(4):
        graphs("double", double, x)
    assert recorder.replays == 3


@pytest.fixture(scope="module")
def graphed(tiny_pipeline):
    """An editor on the CPU whose backend runs through graphs that replay by calling."""
    checkpoint = from_pipeline(tiny_pipeline)
    backend = TorchBackend(checkpoint, torch.device("cpu"), torch.float32)
    backend._graphs = CudaGraphs(ReplayedByCalling(), GraphBounds(graphs=6, nbytes=2**40))
    return Editor(backend, checkpoint.tokenizer)


def requests(pictures):
    return [
        EditRequest(pictures[0], "make it night", steps=6, seed=1, size=16, mask=np.eye(16)),
        EditRequest(pictures[3], "add 3 trees", steps=4, seed=2, size=16, text_guidance=1.0, image_guidance=1.0),
        EditRequest(pictures[1], "dog", steps=5, seed=3, size=24, sampler="dpmpp_2m", num_images=2, negative="cat"),
        EditRequest(pictures[0], "dog", steps=4, seed=4, size=16, guidance_refresh=2),
    ]


@pytest.mark.parametrize("max_rows", [None, 2])
def test_edits_through_graphs_are_those_without(graphed, tiny_editor, pictures, max_rows):
    ours = Editor(graphed.backend, graphed.tokenizer, max_rows)
    plain = Editor(tiny_editor.backend, tiny_editor.tokenizer, max_rows)
    everything = requests(pictures)
    for some in (everything, everything[:1], everything[1:3], everything, everything[::-1]):
        for one, other in zip(ours.edit_many(some), plain.edit_many(some), strict=True):
            np.testing.assert_array_equal(one.latents, other.latents)
            for image, wanted in zip(one.images, other.images, strict=True):
                np.testing.assert_array_equal(np.asarray(image), np.asarray(wanted))
    assert graphed.backend._graphs._recorder.replays > 50


def test_a_warm_up_leaves_nothing_to_capture(tiny_pipeline, pictures):
    checkpoint = from_pipeline(tiny_pipeline)
    backend = TorchBackend(checkpoint, torch.device("cpu"), torch.float32)
    backend._graphs = CudaGraphs(recorder := ReplayedByCalling(), BOUNDS)
    editor = Editor(backend, checkpoint.tokenizer)
    timings = editor.warm_up([(16, 16), (24, 16)], num_images=(2, 1))
    assert timings["denoise"] > 0
    captured = recorder.records
    assert captured == 1 + 2 * (2 + 2)  # a text; for each size both ways of the VAE, and steps of two numbers of edits
    editor.edit(pictures[0], "make it night", steps=3, size=16, num_images=2)
    editor.edit(pictures[1], "dog", steps=3, size=24, negative="cat")
    assert recorder.records == captured
