"""How an engine is made: the model it runs and what it may hold. It crosses processes, the engine does not."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadInput
from ..images import MAX_PIXELS
from .engine import DEFAULT_MAX_QUEUE, Engine, Observer
from .policies import DEFAULT_MAX_ROWS, Policy, policy


@dataclass(frozen=True)
class EngineOptions:
    """
    model, backend, device, dtype   as of `Editor.from_pretrained`
    policy        latency, throughput or static
    max_rows      most UNet rows in flight
    max_step_ms   fewer rows than that, so that a step stays this short; None: no limit
    max_queue     edits that may wait
    max_pixels    width x height of a picture
    warm_up       run steps before the engine is ready
    low_memory    as of `Editor.from_pretrained`
    """

    model: str = "pocket"
    backend: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    policy: str = "latency"
    max_rows: int = DEFAULT_MAX_ROWS
    max_step_ms: float | None = None
    max_queue: int = DEFAULT_MAX_QUEUE
    max_pixels: int = MAX_PIXELS
    warm_up: bool = True
    low_memory: bool = False

    def __post_init__(self) -> None:
        self.chosen_policy()
        if self.max_queue < 1:
            raise BadInput(f"max_queue is {self.max_queue}: at least 1 is needed")

    def chosen_policy(self) -> Policy:
        """Raises BadInput for a name or a limit that cannot be met."""
        return policy(self.policy, self.max_rows, None if self.max_step_ms is None else self.max_step_ms / 1000)


def start_engine(options: EngineOptions, observer: Observer | None = None) -> Engine:
    """Loads the model and starts its engine, which warms up on its own thread."""
    from ..editor import Editor

    editor = Editor.from_pretrained(
        options.model,
        options.backend,
        options.device,
        options.dtype,
        max_rows=None if options.low_memory else options.max_rows,
        max_pixels=options.max_pixels,
        low_memory=options.low_memory,
    )
    engine = Engine(editor, options.chosen_policy(), options.max_queue, observer)
    engine.start(options.warm_up)
    return engine
