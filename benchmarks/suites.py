"""What can be measured: a suite a results file, by the file's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from ip2p_fast.errors import BadInput

from .bench import Bench
from .results import Row


@dataclass(frozen=True)
class Suite:
    """`measure` is the name of a function of a module of this package, imported when it is run."""

    name: str
    device: str
    module: str
    measure: str = "measure"

    def run(self, bench: Bench) -> list[Row]:
        measure: Callable[[Bench], list[Row]] = getattr(import_module(f".{self.module}", __package__), self.measure)
        return measure(bench)


SUITES = {
    suite.name: suite
    for suite in (
        Suite("cpu-pocket", "cpu", "pocket"),
        Suite("cpu-export", "cpu", "exported"),
        Suite("cpu-sd15", "cpu", "sd15"),
        Suite("cpu-memory", "cpu", "memory"),
        Suite("cpu-kernels", "cpu", "kernels"),
        Suite("cpu-attention", "cpu", "attention"),
        Suite("cpu-pairs", "cpu", "pairs"),
        Suite("cpu-breakdown", "cpu", "breakdown"),
        Suite("cpu-stages", "cpu", "stages"),
        Suite("cpu-tried", "cpu", "tried"),
        Suite("cpu-quality", "cpu", "precisions"),
        Suite("cpu-matrix", "cpu", "matrix"),
        Suite("cpu-serving", "cpu", "serving.load"),
        Suite("cpu-serving-soak", "cpu", "serving.soak"),
        Suite("gpu-kernels", "cuda", "gpu_kernels"),
        Suite("gpu-attention", "cuda", "gpu_attention"),
        Suite("gpu-step", "cuda", "gpu", "measure_step"),
        Suite("gpu-breakdown", "cuda", "gpu_breakdown"),
        Suite("gpu-edit", "cuda", "gpu", "measure_edit"),
        Suite("gpu-compiled", "cuda", "gpu_compiled", "measure_peer"),
        Suite("gpu-compiled-ours", "cuda", "gpu_compiled", "measure_ours"),
        Suite("gpu-pairs", "cuda", "gpu_pairs"),
        Suite("gpu-quality", "cuda", "precisions"),
        Suite("gpu-matrix", "cuda", "matrix"),
    )
}


def chosen(names: Sequence[str], quick: bool) -> list[Suite]:
    """The suites of these names; of none, all that this machine can run. A quick trial runs GPU suites on a CPU too.

    Raises BadInput for an unknown name, or one that needs a GPU that is not there.
    """
    import torch

    if unknown := [name for name in names if name not in SUITES]:
        raise BadInput(f"no benchmark is called {', '.join(unknown)}: choose from {', '.join(SUITES)}")
    gpu = torch.cuda.is_available()
    if not names:
        return [suite for suite in SUITES.values() if gpu or suite.device == "cpu"]
    suites = [SUITES[name] for name in names]
    if not (gpu or quick) and (needing := [suite.name for suite in suites if suite.device == "cuda"]):
        raise BadInput(f"{', '.join(needing)} needs a CUDA device and PyTorch sees none; --quick tries it on the CPU")
    return suites


def device_of(suite: Suite) -> str:
    """The suite's own, or for a quick trial of a GPU suite on a machine without one, the CPU."""
    import torch

    return suite.device if torch.cuda.is_available() else "cpu"
