"""How a plan reads: lines of a terminal, the results file of what was measured, and the tables of docs/scaling.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ip2p_fast.benchmarks.results import Results, Row, read_results, write_results
from ip2p_fast.benchmarks.table import between_markers, full_tables
from ip2p_fast.errors import BadInput

from .plan import Costs, Job, Plan, WriterCost, plan_of, seconds_from_arithmetic, triplets_for
from .plan_measure import Measured

BEGIN, END = "<!-- plan:begin -->", "<!-- plan:end -->"
RESULTS = Path("benchmarks/results/cpu-plan.json")

# of the paper's set (section 3.1): triplets after its NSFW filter, and what is left of them by its filter of pairs,
# which may count captions that gave a pair or more, rather than pairs
PAPER_TRIPLETS, PAPER_PAIRS = 451_990, 313_010
# counted by torch's flop counter: Stable Diffusion 1.5's UNet at 64x64 latents, CLIP ViT-L/14's picture tower at 224
UNET_TFLOP, CLIP_TFLOP = 0.80, 0.162
# assumptions, none of them measured
TFLOPS, SMALL_TFLOPS = 100.0, 20.0
LANGUAGE_PARAMETERS, LANGUAGE_TOKENS = 7e9, 100
HOURS_TO_LOSS = 10_000.0
RAW_BYTES = 2 * 512 * 512 * 3
BATCH = 1024  # of the paper's training

_BILLION = 1_000_000_000
_UNKNOWN = "not known"
_BYTES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_TIMES = ((365.25 * 86400, "years"), (86400, "days"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"))
_COUNTS = ((1e12, "trillion"), (1e9, "billion"), (1e7, "million"))
# id -> what it says, unit, how many of the unit are one second, byte, ...
_FIGURES = {
    "seconds_per_sample": ("drawing a sample, that is two pictures", "s", 1.0),
    "clip_per_sample": ("CLIP looking at a sample", "ms", 1e3),
    "jpeg_per_pair": ("encoding and recording a pair", "ms", 1e3),
    "bytes_per_pair": ("a pair in its shard", "kB", 1e-3),
    "append_per_triplet": ("the writer: a triplet without its bytes", "ms", 1e3),
    "append_per_megabyte": ("the writer: a megabyte, with its share of ending a shard", "ms", 1e9),
    "peak_memory": ("memory at the most", "GB", 1e-9),
}


def described(job: Job, plan: Plan) -> dict[str, str]:
    """A plan as labels and texts, in the order to read them in."""
    busy = sum(plan.device_seconds.values())
    parts = [f"{name} {seconds / busy:.1%}" for name, seconds in plan.device_seconds.items() if seconds]
    lines = {
        "triplets": count(plan.triplets),
        "samples drawn": f"{count(plan.samples)} ({job.samples} a triplet, {job.steps} steps)",
        "UNet rows": count(plan.rows),
        "pairs kept": f"{count(plan.pairs)} ({job.kept:.3g} a triplet)",
        "device-hours": _number(plan.device_hours),
        "of these": ", ".join(parts),
        "devices": f"{job.devices:,}",
        "outputs": f"{job.outputs:,}",
        "the devices take": duration(plan.devices_wall),
        "each writer takes": _UNKNOWN if plan.writer_wall is None else duration(plan.writer_wall),
        "writing takes": None if plan.disk_wall is None else duration(plan.disk_wall),
        "wall-clock": duration(plan.wall),
        "bottleneck": plan.bottleneck,
        "devices until the writers are": (
            _UNKNOWN if plan.devices_until_writer is None else _number(plan.devices_until_writer)
        ),
        "cost": None if plan.cost is None else f"{plan.cost:,.2f}",
        "disk, the kept pairs alone": _UNKNOWN if plan.disk_bytes is None else size(plan.disk_bytes),
        "shards": count(plan.shards),
        "a lost worker loses at most": f"{plan.lost_samples} samples, {duration(plan.lost_seconds)} of a device",
        "losses expected": None if plan.losses is None else _number(plan.losses),
        "and with them at most": None if plan.lost_hours is None else f"{_number(plan.lost_hours)} device-hours",
    }
    return {name: text for name, text in lines.items() if text is not None}


def record(path: Path, measured: Measured, job: Job, base: str, clip: str) -> Results:
    """Writes what was measured as a results file, with the job that its table is to be drawn for."""
    costs = measured.costs
    assert costs.bytes_per_pair is not None and costs.writer is not None
    values = {
        "seconds_per_sample": costs.drawing,
        "clip_per_sample": costs.clip,
        "jpeg_per_pair": costs.jpeg,
        "bytes_per_pair": costs.bytes_per_pair,
        "append_per_triplet": costs.writer.per_triplet,
        "append_per_megabyte": costs.writer.per_byte,
        "peak_memory": float(measured.peak_memory),
    }
    settings = {
        "base": base,
        "steps": measured.steps,
        "size": f"{measured.size[1]}x{measured.size[0]}",
        "measured_samples": measured.samples,
        "triplets": job.triplets,
        "samples": job.samples,
        "kept": job.kept,
    }
    device = "cpu" if measured.device == "cpu" else "gpu"
    rows = []
    for name, value in values.items():
        what, unit, units = _FIGURES[name]
        detail = {"what": what, **(settings if name == "seconds_per_sample" else {})}
        rows.append(Row(f"{device}.plan.{name}", value * units, unit, "lower", detail=detail))
    rerun = (
        f"ip2p-fast dataset plan --triplets {job.triplets} --kept {job.kept:.4g} --samples {job.samples} "
        f"--steps {job.steps} --measure {measured.samples} --base {base} --clip {clip} --size {settings['size']} "
        f"--record {path.as_posix()}"
    )
    return write_results(path, rows, rerun)


def draw_tables(document: Path, results: Path | None) -> None:
    """Redraws the tables between the marker lines. results: None where nothing is measured: that has no column then.

    Raises:
        BadInput: the document lacks the markers, or the results file is faulty.
    """
    tables = drawn_tables(None if results is None else read_results(results))
    document.write_text(between_markers(document, tables, BEGIN, END), encoding="utf-8")


def drawn_tables(found: Results | None) -> str:
    """The tables of docs/scaling.md. found: of `record`, or None."""
    measured = None if found is None else _measured_costs(found)
    paper = Job(PAPER_TRIPLETS, PAPER_PAIRS / PAPER_TRIPLETS)
    billion = replace(paper, triplets=triplets_for(_BILLION, paper.kept), devices=10_000, hours_to_loss=HOURS_TO_LOSS)
    costs = replace(paper_costs(100, 100), writer=None if measured is None else measured[1].writer)
    columns: dict[str, tuple[Job, Costs]] = {}
    if measured is not None:
        columns["pocket world, this CPU"] = measured
    columns |= {
        "paper's set, 1 GPU": (paper, costs),
        "paper's set, 64 GPUs": (replace(paper, devices=64), costs),
        "a billion pairs, 10,000 GPUs": (billion, costs),
        "the same, 1,000 outputs": (replace(billion, outputs=1000), costs),
    }
    plans = {name: described(job, plan_of(job, costs)) for name, (job, costs) in columns.items()}
    parts = [_assumptions(), "", _side_by_side(plans), "", _shifts(), "", _reading()]
    if found is not None:
        parts += ["", full_tables({"cpu-plan": found})]
    return "\n".join(parts)


def paper_costs(samples: int, steps: int) -> Costs:
    """Of the paper's set with Stable Diffusion 1.5 at 512x512, by arithmetic at the assumed rates."""
    return Costs(
        drawing=seconds_from_arithmetic(steps, UNET_TFLOP, TFLOPS),
        clip=2 * CLIP_TFLOP / SMALL_TFLOPS,
        language=2 * LANGUAGE_PARAMETERS * LANGUAGE_TOKENS / 1e12 / SMALL_TFLOPS,
        bytes_per_pair=RAW_BYTES,
    )


def count(number: int) -> str:
    """1,234,567 as it is; more than ten millions in words."""
    for least, name in _COUNTS:
        if number >= least:
            return f"{number / least if name != 'million' else number / 1e6:.3g} {name}"
    return f"{number:,}"


def size(number: float) -> str:
    """Bytes, with decimal units."""
    return next((f"{number / unit:.3g} {name}" for unit, name in _BYTES if number >= unit), f"{number:.0f} bytes")


def duration(seconds: float) -> str:
    """In the largest unit of which there are two."""
    unit, name = next(((unit, name) for unit, name in _TIMES if seconds >= 2 * unit), _TIMES[-1])
    return f"{_number(seconds / unit)} {name}"


def _number(value: float) -> str:
    """Three significant digits, and never as a power of ten where it is large."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _measured_costs(found: Results) -> tuple[Job, Costs]:
    rows = {row.id.rpartition(".")[2]: row for row in found.rows}
    if missing := [name for name in _FIGURES if name not in rows]:
        raise BadInput(f"the results file has no row {missing[0]}: make it again with `dataset plan --measure`")
    value = {name: rows[name].value / units for name, (_, _, units) in _FIGURES.items()}
    settings = rows["seconds_per_sample"].detail
    if unknown := [name for name in ("triplets", "kept", "samples", "steps") if name not in settings]:
        raise BadInput(f"the results file does not say the {unknown[0]}: make it again with `dataset plan --measure`")
    costs = Costs(
        drawing=value["seconds_per_sample"],
        clip=value["clip_per_sample"],
        jpeg=value["jpeg_per_pair"],
        bytes_per_pair=value["bytes_per_pair"],
        writer=WriterCost(value["append_per_triplet"], value["append_per_megabyte"]),
    )
    return Job(settings["triplets"], settings["kept"], settings["samples"], settings["steps"]), costs


def _assumptions() -> str:
    clip, language = 2 * CLIP_TFLOP, 2 * LANGUAGE_PARAMETERS * LANGUAGE_TOKENS / 1e12
    return "\n".join(
        [
            "| of the GPU columns | value | from |",
            "| --- | --- | --- |",
            f"| one UNet row at 512x512 | {UNET_TFLOP:.2f} TFLOP | counted |",
            f"| CLIP ViT-L/14 on a sample | {clip:.3g} TFLOP | counted |",
            f"| pairs kept of a triplet | {PAPER_PAIRS:,} / {PAPER_TRIPLETS:,} | the paper's set; the first may count "
            "captions rather than pictures |",
            f"| UNet, sustained by a GPU | {TFLOPS:g} TFLOP/s | **assumed** |",
            f"| CLIP and language model, sustained by a GPU | {SMALL_TFLOPS:g} TFLOP/s | **assumed** |",
            f"| language model, a triplet | {language:.3g} TFLOP: {LANGUAGE_PARAMETERS / 1e9:g} billion parameters, "
            f"{LANGUAGE_TOKENS} tokens | **assumed** |",
            f"| a pair on disk | {RAW_BYTES / 1e6:.2f} MB: its pixels uncompressed | **assumed** |",
            f"| hours of a device until it is lost, last two columns | {HOURS_TO_LOSS:,.0f} | **assumed** |",
        ]
    )


def _side_by_side(plans: dict[str, dict[str, str]]) -> str:
    labels = dict.fromkeys(label for texts in plans.values() for label in texts)
    lines = [f"| | {' | '.join(plans)} |", f"|{' --- |' * (len(plans) + 1)}"]
    lines += [f"| {label} | {' | '.join(texts.get(label, '') for texts in plans.values())} |" for label in labels]
    return "\n".join(lines)


def _shifts() -> str:
    """Where a device's time goes, by samples and steps."""
    lines = ["| samples | steps | a triplet takes | drawing | CLIP | language model |", f"|{' --- |' * 6}"]
    for samples, steps in ((100, 100), (100, 20), (100, 4), (4, 100), (1, 100), (1, 20), (1, 4)):
        parts = plan_of(Job(1, 0.5, samples, steps), paper_costs(samples, steps)).device_seconds
        total = sum(parts.values())
        shares = " | ".join(f"{parts[name] / total:.1%}" for name in ("drawing", "CLIP", "language model"))
        lines.append(f"| {samples} | {steps} | {duration(total)} | {shares} |")
    return "\n".join(lines)


def _reading() -> str:
    """What training reads."""
    lines = ["| training reads, at that size of a pair | |", "| --- | --- |"]
    lines.append(f"| a step of {BATCH:,} pairs at 512x512 | {size(BATCH * RAW_BYTES)} |")
    lines.append(f"| a billion pairs once | {size(_BILLION * RAW_BYTES)} |")
    return "\n".join(lines)
