"""Who makes the pairs: this process, or actors of a Ray cluster. What they make is the same."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ip2p_fast.errors import BadInput, MissingExtra

from .generator import Drawing, PairGenerator
from .making import Choice, Numbered, Outcome, PairMaker

Make = Callable[[Iterable[Numbered]], Iterator[Outcome]]

# one at work, and one waiting, so that an actor need not wait for its next
_LINES_OF_AN_ACTOR = 2
_MOST_LOSSES = 3
# seconds
_CONNECTING = 10.0


@dataclass(frozen=True)
class Recipe:
    """All that pairs are made with; base and clip as `PairGenerator.from_pretrained` and `ClipScorer` take them."""

    base: str
    clip: str
    drawing: Drawing
    choice: Choice
    longest: int = 400
    device: str = "auto"
    dtype: str = "auto"

    @property
    def settings(self) -> dict[str, Any]:
        """What the pairs depend on: not how many are in flight, nor where they are made."""
        drawing = asdict(self.drawing)
        del drawing["at_once"]
        return {"base": self.base, "clip": self.clip, "longest": self.longest, **drawing, **asdict(self.choice)}


def maker(recipe: Recipe) -> Make:
    """Loads the models into this process.

    Raises:
        ModelError, BadInput: a model cannot be loaded, or cannot draw what is asked.
    """
    from .clip_scores import ClipScorer

    generator = PairGenerator.from_pretrained(recipe.base, recipe.drawing, recipe.device, recipe.dtype)
    scorer = ClipScorer(recipe.clip, generator.device)
    return PairMaker(generator, scorer, recipe.choice, recipe.longest).make


def on_ray(recipe: Recipe, address: str, workers: int | None = None) -> Make:
    """Actors of a Ray cluster, each with its own models, to whom lines are handed out one by one.

    The lines of an actor that is lost are given to others, and another actor takes its place.

    Args:
        address: of the cluster, or "local" for one on this machine.
        workers: None for one a GPU, or where there is none, one a CPU.

    Raises:
        MissingExtra: Ray is not installed.
        BadInput: there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("--ray", "ray") from error
    if not ray.is_initialized():
        if address != "local":
            _require_answer(address)
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise BadInput(f"there is no Ray cluster at {address!r}: {' '.join(str(error).split())}") from error
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count = workers or gpus or int(ray.cluster_resources()["CPU"])
    actor = ray.remote(_Actor).options(num_cpus=1, num_gpus=1 if gpus else 0)
    return _Pool(ray, lambda: actor.remote(recipe), count).make


def _require_answer(address: str) -> None:
    """Raises BadInput where nothing answers at HOST:PORT; Ray itself would try for minutes. Other forms are Ray's."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not (separator and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECTING).close()
    except OSError as error:
        raise BadInput(f"there is no Ray cluster at {address!r}: {error}") from error


class _Actor:
    """One of Ray's processes: the models, loaded once."""

    def __init__(self, recipe: Recipe) -> None:
        self._make = maker(recipe)

    def outcome(self, line: Numbered) -> Outcome:
        return next(self._make([line]))


class _Pool:
    """Hands lines to actors and takes outcomes as they come; replaces actors that are lost."""

    def __init__(self, ray: Any, start: Callable[[], Any], count: int) -> None:
        self._ray, self._start = ray, start
        self._actors = [start() for _ in range(count)]

    def make(self, lines: Iterable[Numbered]) -> Iterator[Outcome]:
        waiting, returned = iter(lines), list[Numbered]()
        at_work: dict[Any, tuple[int, Numbered]] = {}  # reference -> the actor's place, what it was given
        losses: Counter[int] = Counter()
        while True:
            load = Counter(place for place, _ in at_work.values())
            for place in range(len(self._actors)):
                for _ in range(_LINES_OF_AN_ACTOR - load[place]):
                    line = returned.pop(0) if returned else next(waiting, None)
                    if line is not None:
                        at_work[self._actors[place].outcome.remote(line)] = place, line
            if not at_work:
                return
            (done,), _ = self._ray.wait(list(at_work), num_returns=1)
            place, line = at_work.pop(done)
            try:
                yield self._ray.get(done)
            except self._ray.exceptions.RayActorError as error:
                losses[line.number] += 1
                if losses[line.number] == _MOST_LOSSES:
                    raise BadInput(
                        f"line {line.number + 1}: {_MOST_LOSSES} workers were lost over it; the last: {error}"
                    ) from error
                self._replace(place, at_work, returned)
                returned.append(line)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None

    def _replace(self, place: int, at_work: dict[Any, tuple[int, Numbered]], returned: list[Numbered]) -> None:
        """Puts a new actor in the place of a lost one, whose other lines come back."""
        for reference in [reference for reference, (other, _) in at_work.items() if other == place]:
            returned.append(at_work.pop(reference)[1])
        self._actors[place] = self._start()
