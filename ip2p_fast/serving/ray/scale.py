"""How many replicas there are, and on what."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import BadInput


@dataclass(frozen=True)
class Scale:
    """
    replicas      engines that are kept; with max_replicas the fewest
    max_replicas  most engines, to which Ray adds while each has more than `target` requests; None: always `replicas`
    target        requests that a replica works on or queues, on average, when there are enough; None: as many edits of
                  three rows as fill its room
    cpus          of a replica; may be a fraction
    gpus          of a replica; None: one, where there are any and the device is not the CPU
    """

    replicas: int = 1
    max_replicas: int | None = None
    target: float | None = None
    cpus: float = 1.0
    gpus: float | None = 0.0

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise BadInput(f"replicas is {self.replicas}: at least 1 is needed")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise BadInput(f"max_replicas is {self.max_replicas}: at least replicas, {self.replicas}, is needed")
        for name in ("target", "cpus", "gpus"):
            value = getattr(self, name)
            if value is not None and not (value > 0 or (value == 0 and name != "target")):
                raise BadInput(f"{name} is {value}: a number above 0 is needed")
