"""What a set of pairs costs before it is made: devices' time, days, money and disk, from the cost of one sample.

With T triplets, S samples of each, k kept pairs a triplet, N devices and K outputs (ranges of the triplets):

    a triplet's time     t = language + S (drawing + CLIP) + k JPEG                  seconds of one device
    the devices' time    D = ceil(T / N) t                                           a triplet is not divided
    the writer's time    W = T/K (a + k B b)                                         of each output, one process
    the disk's time      R = T k B / rate
    wall-clock           max(D, W, R)

B are the bytes of a pair; a what the writer needs for a triplet (two fsyncs), b for a byte (writing, and SHA-256 of the
whole shard). Left out is that ending a shard reads the lines of those before it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from ip2p_fast.errors import BadInput

from ..pairs.pair_store import MANIFEST, whole_shards

ROWS_A_STEP = 4
"""UNet rows a step of a pair: two pictures, each with its text and without (section 3.1.2)."""
LINES_OF_A_WORKER = 2
"""What a worker of --ray holds: the triplet at work and the one that waits."""


@dataclass(frozen=True)
class Job:
    """What is to be made, and with what.

    kept           pairs kept of a triplet, the mean
    devices        that draw, each with the models
    outputs        folders of `dataset pairs`, each with a writer of its own and an equal range of the triplets
    price          of a device-hour, in whatever currency; None where cost is not asked for
    write_rate     bytes a second that all outputs together can write; None for no limit
    hours_to_loss  mean hours until a device is lost; None for never
    """

    triplets: int
    kept: float
    samples: int = 100
    steps: int = 100
    devices: int = 1
    outputs: int = 1
    per_shard: int = 1000
    price: float | None = None
    write_rate: float | None = None
    hours_to_loss: float | None = None

    def __post_init__(self) -> None:
        for name in ("triplets", "samples", "steps", "devices", "outputs", "per_shard"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name.replace('_', ' ')}: {getattr(self, name)} is too few, at least 1 is needed")
        if not 0 < self.kept <= self.samples:
            raise BadInput(f"{self.kept:g} pairs kept of {self.samples} samples: more than 0, and no more than drawn")
        if self.outputs > self.triplets:
            raise BadInput(f"{self.outputs} outputs of {self.triplets} triplets: no more outputs than triplets")
        require_positive("price", self.price, zero=True)
        require_positive("write rate", self.write_rate)
        require_positive("hours to a loss", self.hours_to_loss)


@dataclass(frozen=True)
class WriterCost:
    """Seconds that the one process of an output which writes needs: for a triplet, and for a byte."""

    per_triplet: float
    per_byte: float


@dataclass(frozen=True)
class Costs:
    """Seconds of one device: drawing and clip of a sample, jpeg of a kept pair, language of a triplet.

    bytes_per_pair, writer: None where they are not known; then neither is what follows from them.
    """

    drawing: float
    clip: float = 0.0
    jpeg: float = 0.0
    language: float = 0.0
    bytes_per_pair: float | None = None
    writer: WriterCost | None = None

    def __post_init__(self) -> None:
        require_positive("seconds a sample", self.drawing)
        require_positive("CLIP's seconds a sample", self.clip, zero=True)
        require_positive("JPEG's seconds a pair", self.jpeg, zero=True)
        require_positive("the language model's seconds a triplet", self.language, zero=True)
        require_positive("bytes a pair", self.bytes_per_pair)


@dataclass(frozen=True)
class Plan:
    """What it comes to.

    rows                  evaluations of the UNet, of one picture with or without its text
    device_seconds        of all devices together, by part
    devices_wall          seconds until the devices are done; writer_wall, disk_wall: the writers, and the disk
    cost                  price x devices x wall-clock: devices that wait are paid too
    bottleneck            the part that takes the most of the longest of the three
    devices_until_writer  with more of them the writers are the limit
    lost_samples          at most, when a worker is lost; lost_seconds: one device's time for them
    losses, lost_hours    expected; device-hours at most
    """

    triplets: int
    pairs: int
    samples: int
    rows: int
    device_seconds: dict[str, float]
    devices_wall: float
    writer_wall: float | None
    disk_wall: float | None
    wall: float
    cost: float | None
    disk_bytes: float | None
    shards: int
    bottleneck: str
    devices_until_writer: float | None
    lost_samples: int
    lost_seconds: float
    losses: float | None
    lost_hours: float | None

    @property
    def device_hours(self) -> float:
        """Of work, waiting left out."""
        return sum(self.device_seconds.values()) / 3600


@dataclass(frozen=True)
class Made:
    """What a set that was made tells: shares are of its triplets, dropped of its samples by cause."""

    samples: int
    steps: int
    kept: float
    bytes_per_pair: float
    without_a_pair: float
    dropped: dict[str, float]


def plan_of(job: Job, costs: Costs) -> Plan:
    """The plan of a job.

    Raises:
        BadInput: a write rate is given and the bytes of a pair are not.
    """
    if job.write_rate is not None and costs.bytes_per_pair is None:
        raise BadInput("a write rate says nothing while the bytes of a pair are not known: give --bytes-per-pair")
    samples, pairs = job.triplets * job.samples, round(job.triplets * job.kept)
    of_one = {
        "language model": costs.language,
        "drawing": job.samples * costs.drawing,
        "CLIP": job.samples * costs.clip,
        "JPEG": job.kept * costs.jpeg,
    }
    a_triplet, parts = sum(of_one.values()), {name: job.triplets * seconds for name, seconds in of_one.items()}
    total = job.triplets * a_triplet
    shards = job.outputs * max(1, math.ceil(pairs / job.outputs / job.per_shard))
    disk_bytes = None if costs.bytes_per_pair is None else pairs * costs.bytes_per_pair
    devices_wall = math.ceil(job.triplets / job.devices) * a_triplet
    walls = {
        max(parts, key=lambda name: parts[name]): devices_wall,
        "writer": _writer_wall(job, costs),
        "write rate": None if job.write_rate is None or disk_bytes is None else disk_bytes / job.write_rate,
    }
    known = {name: seconds for name, seconds in walls.items() if seconds is not None}
    bottleneck = max(known, key=lambda name: known[name])
    wall, writer_wall = known[bottleneck], walls["writer"]
    lost_samples = LINES_OF_A_WORKER * job.samples
    lost_seconds = LINES_OF_A_WORKER * (a_triplet - costs.language)
    losses = None if job.hours_to_loss is None else total / 3600 / job.hours_to_loss
    return Plan(
        triplets=job.triplets,
        pairs=pairs,
        samples=samples,
        rows=samples * job.steps * ROWS_A_STEP,
        device_seconds=parts,
        devices_wall=devices_wall,
        writer_wall=writer_wall,
        disk_wall=walls["write rate"],
        wall=wall,
        cost=None if job.price is None else job.price * job.devices * wall / 3600,
        disk_bytes=disk_bytes,
        shards=shards,
        bottleneck=bottleneck,
        devices_until_writer=total / writer_wall if writer_wall else None,
        lost_samples=lost_samples,
        lost_seconds=lost_seconds,
        losses=losses,
        lost_hours=None if losses is None else losses * lost_seconds / 3600,
    )


def triplets_for(pairs: int, kept: float) -> int:
    """How many triplets give so many pairs, when `kept` of each are kept."""
    if pairs < 1:
        raise BadInput(f"{pairs} pairs: at least 1 is needed")
    require_positive("pairs kept of a triplet", kept)
    return math.ceil(pairs / kept - 1e-9)  # 3 / 0.1 is a little above 30


def seconds_from_arithmetic(steps: int, tflop_per_row: float, tflops: float) -> float:
    """Seconds of drawing a sample: 4 rows a step at a rate that is sustained, in TFLOP/s."""
    require_positive("TFLOP a row", tflop_per_row)
    require_positive("sustained TFLOP/s", tflops)
    return ROWS_A_STEP * steps * tflop_per_row / tflops


def read_made(out: Path) -> Made:
    """What a set tells that `dataset pairs` has made, or is making: its whole shards, and the one that grows.

    Raises:
        BadInput: it is no such set, no triplet of it is done, or none of them gave a pair.
    """
    path = out / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        counts, settings = manifest["counts"], manifest["settings"]
        # a shard that ends after the manifest was read is the growing one of that manifest
        shards = [*whole_shards(out)[: manifest["shards"]], {name: manifest[name] for name in ("records", "bytes")}]
        samples, steps = int(settings["draws"]["count"]), int(settings["steps"])
        records, size = (sum(int(shard[name]) for shard in shards) for name in ("records", "bytes"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} cannot be read ({error!r}): give a folder that `dataset pairs` made") from error
    done = counts.get("done", 0)
    if not done or not records:
        raise BadInput(f"{out} has {records} pairs of {done} triplets: at least one of each is needed to plan by")
    drawn = {name: count for name, count in counts.items() if name.startswith("samples ")}
    dropped = {
        name.removeprefix("samples "): count / sum(drawn.values())
        for name, count in drawn.items()
        if count and name != "samples kept"
    }
    return Made(
        samples=samples,
        steps=steps,
        kept=records / done,
        bytes_per_pair=size / records,
        without_a_pair=counts.get("without a pair", 0) / done,
        dropped=dropped,
    )


def require_positive(name: str, value: float | None, zero: bool = False) -> None:
    """Raises BadInput unless the value is None, or finite and above 0; `zero`: 0 is allowed too."""
    if value is not None and not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        raise BadInput(f"{name}: {value:g} is not a number {'of at least' if zero else 'above'} 0")


def _writer_wall(job: Job, costs: Costs) -> float | None:
    """Seconds that the writer of one output is busy."""
    if costs.writer is None or costs.bytes_per_pair is None:
        return None
    a_triplet = costs.writer.per_triplet + job.kept * costs.bytes_per_pair * costs.writer.per_byte
    return job.triplets / job.outputs * a_triplet
