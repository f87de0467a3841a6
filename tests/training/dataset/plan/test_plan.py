"""What a set costs before it is made: the arithmetic, its sources, and the tables of the document."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from pair_work import recipe, work
from typer.testing import CliRunner

from ip2p_fast.benchmarks.results import Row, read_results, write_results
from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.cli import app
from ip2p_fast.training.dataset.pairs import workers
from ip2p_fast.training.dataset.pairs.pair_store import MANIFEST, SHARDS, whole_shards
from ip2p_fast.training.dataset.plan import plan_document
from ip2p_fast.training.dataset.plan.plan import (
    LINES_OF_A_WORKER,
    Costs,
    Job,
    WriterCost,
    plan_of,
    read_made,
    seconds_from_arithmetic,
    triplets_for,
)
from ip2p_fast.training.dataset.plan.plan_document import BEGIN, END, count, draw_tables, duration, size

JOB = Job(triplets=1000, kept=2.0, samples=10, steps=5)
COSTS = Costs(drawing=3.0, clip=0.5, jpeg=0.25, language=4.5, bytes_per_pair=500_000)
WRITER = WriterCost(per_triplet=0.01, per_byte=1e-8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, a CLIP, and a set that was made of five triplets, one line of which is none."""
    root = tmp_path_factory.mktemp("plan")
    tiny.text_to_image(root / "source").save_pretrained(root / "base")
    tiny.save_clip(root / "clip")
    lines = [
        json.dumps({"caption": f"{i} cats", "edit": "make them dogs", "output": f"{i} dogs at night"}) for i in range(5)
    ]
    (root / "triplets.jsonl").write_text("\n".join([*lines, "no triplet"]) + "\n")
    work(root, root / "made")
    return root


def planned(*options):
    result = CliRunner().invoke(app, ["plan", *map(str, options), "--json"], catch_exceptions=False)
    return json.loads(result.stdout.splitlines()[-1])


def refused(*options):
    result = CliRunner().invoke(app, ["plan", *map(str, options)])
    assert isinstance(result.exception, BadInput), result.output
    return str(result.exception)


def test_a_plan_is_as_counted_by_hand():
    plan = plan_of(replace(JOB, devices=7, price=2.0, hours_to_loss=10.0), COSTS)
    assert (plan.samples, plan.pairs, plan.rows, plan.shards) == (10_000, 2000, 200_000, 2)
    assert plan.device_seconds == {"language model": 4500.0, "drawing": 30_000.0, "CLIP": 5000.0, "JPEG": 500.0}
    assert plan.device_hours == pytest.approx(40_000 / 3600)
    # one of seven devices gets 143 of 1000 triplets, 40 seconds each
    assert plan.wall == plan.devices_wall == pytest.approx(143 * 40)
    assert plan.cost == pytest.approx(2 * 7 * 143 * 40 / 3600)
    assert plan.disk_bytes == 1e9
    assert plan.bottleneck == "drawing"
    assert (plan.lost_samples, plan.lost_seconds) == (20, pytest.approx(2 * 35.5))
    assert plan.losses == pytest.approx(40_000 / 3600 / 10)
    assert plan.lost_hours == pytest.approx(40_000 / 3600 / 10 * 71 / 3600)
    assert plan.writer_wall is plan.disk_wall is plan.devices_until_writer is None


def test_a_writer_pays_for_the_triplets_and_bytes_of_its_output():
    costs = replace(COSTS, writer=WRITER)
    one, two = plan_of(JOB, costs), plan_of(replace(JOB, outputs=2), costs)
    assert one.writer_wall == pytest.approx(1000 * (0.01 + 1e6 * 1e-8))
    assert two.writer_wall == pytest.approx(one.writer_wall / 2)
    assert one.devices_until_writer == pytest.approx(40_000 / one.writer_wall)
    assert two.devices_until_writer == pytest.approx(2 * one.devices_until_writer)


def test_a_triplet_costs_a_writer_the_same_however_long_its_output_is():
    costs = replace(COSTS, writer=WRITER)
    long = plan_of(replace(JOB, triplets=10**9, per_shard=1), costs)
    assert long.writer_wall / 10**9 == pytest.approx(plan_of(JOB, costs).writer_wall / 1000)


def test_beyond_so_many_devices_the_writer_is_the_bottleneck():
    job, costs = replace(JOB, triplets=1_000_000), replace(COSTS, writer=WRITER)
    limit = plan_of(job, costs).devices_until_writer
    below, above = (plan_of(replace(job, devices=int(limit * by)), costs) for by in (0.9, 1.1))
    assert (below.bottleneck, above.bottleneck) == ("drawing", "writer")
    assert above.wall == above.writer_wall > above.devices_wall


@pytest.mark.parametrize(
    ("change", "costs", "bottleneck"),
    [
        ({}, {"clip": 3.1}, "CLIP"),
        ({"samples": 2}, {}, "drawing"),
        ({"samples": 1, "kept": 1.0}, {}, "language model"),
        ({}, {"jpeg": 100.0}, "JPEG"),
        ({"write_rate": 1e5}, {}, "drawing"),
        ({"write_rate": 1e4}, {}, "write rate"),
    ],
)
def test_the_bottleneck_is_what_takes_longest(change, costs, bottleneck):
    assert plan_of(replace(JOB, **change), replace(COSTS, **costs)).bottleneck == bottleneck


def test_four_rows_a_step_at_a_sustained_rate():
    assert seconds_from_arithmetic(steps=100, tflop_per_row=0.8, tflops=160.0) == pytest.approx(2.0)


def test_a_share_that_binary_cannot_hold_asks_for_no_triplet_more():
    assert [triplets_for(3, 0.1), triplets_for(10, 3.0), triplets_for(8, 4.0)] == [30, 4, 2]


whole = st.integers(1, 10**7)
positive = st.floats(1e-3, 1e3)


@given(pairs=whole, kept=st.floats(0.01, 4), more=whole)
def test_more_pairs_never_need_fewer_triplets_and_these_are_enough(pairs, kept, more):
    needed = triplets_for(pairs, kept)
    assert triplets_for(pairs + more, kept) >= needed
    assert needed * kept >= pairs * (1 - 1e-6) and (needed - 1) * kept < pairs


@given(devices=whole, more=whole, drawing=positive, clip=positive, rate=st.floats(1e3, 1e9))
def test_more_devices_never_take_longer_and_more_work_never_takes_less(devices, more, drawing, clip, rate):
    job = replace(JOB, devices=devices, write_rate=rate)
    costs = replace(COSTS, drawing=drawing, clip=clip, writer=WRITER)
    plan = plan_of(job, costs)
    assert plan_of(replace(job, devices=devices + more), costs).wall <= plan.wall
    assert plan_of(replace(job, write_rate=rate / 2), costs).wall >= plan.wall
    assert plan_of(replace(job, outputs=2), costs).writer_wall <= plan.writer_wall
    for larger in (replace(job, triplets=job.triplets + more), replace(job, samples=job.samples + more)):
        assert plan_of(larger, costs).wall >= plan.wall
        assert plan_of(larger, costs).device_hours > plan.device_hours


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"triplets": 0}, "triplets: 0 is too few"),
        ({"devices": 0}, "devices: 0 is too few"),
        ({"per_shard": 0}, "per shard: 0 is too few"),
        ({"kept": 0.0}, "0 pairs kept of 10 samples"),
        ({"kept": 11.0}, "11 pairs kept of 10 samples"),
        ({"kept": float("nan")}, "nan pairs kept"),
        ({"outputs": 1001}, "1001 outputs of 1000 triplets"),
        ({"price": -1.0}, "price: -1 is not a number of at least 0"),
        ({"write_rate": 0.0}, "write rate: 0 is not a number above 0"),
        ({"hours_to_loss": float("inf")}, "hours to a loss: inf"),
    ],
)
def test_a_job_that_cannot_be_is_refused(change, message):
    with pytest.raises(BadInput, match=message):
        replace(JOB, **change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "come from nowhere: give one of"),
        (["--seconds-per-sample", 1, "--measure", 2], "from --seconds-per-sample and --measure"),
        (["--seconds-per-sample", 0], "seconds a sample: 0 is not a number above 0"),
        (["--tflops", 100], "--tflops and --tflop-per-row belong together"),
        (["--tflops", 0, "--tflop-per-row", 0.8], "sustained TFLOP/s: 0"),
        (["--seconds-per-sample", 1, "--clip-seconds", 1], "--clip-seconds belongs to --tflops"),
        (["--seconds-per-sample", 1, "--pairs", 5], "one of --pairs and --triplets"),
        (["--seconds-per-sample", 1, "--like", "nowhere"], "one of --kept and --like"),
        (["--seconds-per-sample", 1, "--record", "a.json"], "--record belongs to --measure"),
        (["--seconds-per-sample", 1, "--write-rate", 100], "give --bytes-per-pair"),
        (["--measure", 0], "--measure is 0"),
    ],
)
def test_what_does_not_make_a_plan_is_refused(options, message):
    assert message in refused("--triplets", 100, "--kept", 1, *options)


def test_arithmetic_alone_makes_a_plan():
    plan = planned(
        *["--pairs", 1000, "--kept", 0.5, "--tflops", 100, "--tflop-per-row", 0.8, "--gpus", 4, "--price", 3],
        *["--bytes-per-pair", 1e6, "--write-rate", 10, "--clip-seconds", 0.8, "--seconds-per-triplet", 5],
    )
    assert (plan["triplets"], plan["rows"]) == (2000, 2000 * 100 * 100 * 4)
    assert plan["device_hours"] == pytest.approx(2000 * (100 * 4.0 + 5) / 3600)
    assert plan["cost"] == pytest.approx(3 * plan["device_hours"])
    assert plan["disk_wall"] == 100.0


def test_a_set_that_was_made_tells_what_is_kept(folder):
    manifest = json.loads((folder / "made" / MANIFEST).read_text())
    pairs = sum(shard["records"] for shard in whole_shards(folder / "made"))
    made = read_made(folder / "made")
    assert (made.samples, made.steps, made.kept) == (4, 4, pairs / 5)
    assert made.bytes_per_pair == sum(path.stat().st_size for path in (folder / "made").glob("*.tar")) / pairs
    assert made.without_a_pair == manifest["counts"].get("without a pair", 0) / 5
    assert sum(made.dropped.values()) == pytest.approx(1 - pairs / 20)

    plan = planned("--pairs", 1000, "--like", folder / "made", "--seconds-per-sample", 2)
    assert plan["triplets"] == triplets_for(1000, pairs / 5)
    assert plan["samples"] == 4 * plan["triplets"]
    assert plan["disk_bytes"] == pytest.approx(plan["pairs"] * made.bytes_per_pair)


def test_a_set_in_the_making_tells_too(folder, tmp_path):
    manifest = json.loads((folder / "made" / MANIFEST).read_text())
    manifest |= {
        "shards": 2,
        "records": 3,
        "bytes": 3000,
        "counts": {"done": 8, "samples kept": 12, "samples low image": 20},
    }
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    # the third is not in the manifest's count: its records are still those of the growing shard
    shards = [{"records": 4, "bytes": 5000}, {"records": 5, "bytes": 4000}, {"records": 3, "bytes": 3000}]
    (tmp_path / SHARDS).write_text("".join(json.dumps(shard) + "\n" for shard in shards))
    made = read_made(tmp_path)
    assert (made.kept, made.bytes_per_pair, made.dropped) == (1.5, 1000.0, {"low image": 0.625})


def test_a_set_that_tells_nothing_is_refused(folder, tmp_path):
    like = ["--triplets", 10, "--seconds-per-sample", 1, "--like"]
    assert "cannot be read" in refused(*like, tmp_path)
    manifest = json.loads((folder / "made" / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"shards": 0, "records": 0}))
    assert "0 pairs of 5 triplets" in refused(*like, tmp_path)
    assert "--samples is 9, but the set of --like was made with 4" in refused(*like, folder / "made", "--samples", 9)


def test_a_measured_plan_is_recorded_and_drawn_into_a_document(folder, tmp_path):
    results, document = tmp_path / "cpu-plan.json", tmp_path / "scaling.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    plan = planned(
        *["--triplets", 50, "--kept", 1.5, "--samples", 4, "--steps", 3, "--measure", 3, "--base", folder / "base"],
        *["--clip", folder / "clip", "--device", "cpu", "--on", tmp_path, "--record", results, "--document", document],
    )
    costs = plan["costs"]
    assert min(costs["drawing"], costs["clip"], costs["jpeg"], costs["writer"]["per_triplet"]) > 0
    # two JPEGs of 16x16 and a JSON, each in a tar's blocks
    assert 3 * 1024 <= costs["bytes_per_pair"] <= 3 * 2560
    assert plan["device_seconds"]["drawing"] == pytest.approx(200 * costs["drawing"])
    assert plan["writer_wall"] > 0 and plan["peak_memory"] > 10**7
    assert list(tmp_path.glob(".plan-*")) == []

    rows = {row.id: row for row in read_results(results).rows}
    assert rows["cpu.plan.seconds_per_sample"].value == pytest.approx(costs["drawing"], rel=1e-5)
    assert rows["cpu.plan.bytes_per_pair"].value == pytest.approx(costs["bytes_per_pair"] / 1000, rel=1e-5)
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith(f"{END}\nafter\n") and "old" not in text
    assert "| triplets | 50 | 451,990 | 451,990 |" in text
    # the tables are of the file alone
    planned_again = CliRunner().invoke(app, ["plan", "--document", str(document), "--record", str(results)])
    assert planned_again.exit_code == 0 and document.read_text() == text


@pytest.mark.parametrize("lacking", ["row", "detail"])
def test_a_results_file_of_something_else_is_refused(tmp_path, lacking):
    names = list(plan_document._FIGURES)[: -1 if lacking == "row" else None]
    rows = [Row(f"cpu.plan.{name}", 1.0, "s", "lower") for name in names]
    found = write_results(tmp_path / "results.json", rows, rerun="")
    with pytest.raises(BadInput, match="has no row peak_memory" if lacking == "row" else "does not say the triplets"):
        plan_document.drawn_tables(found)


def test_a_writer_is_timed_where_the_set_is_to_be(folder):
    options = ["--triplets", 5, "--kept", 1, "--samples", 2, "--steps", 2, "--measure", 1, "--device", "cpu"]
    message = refused(*options, "--base", folder / "base", "--clip", folder / "clip", "--on", folder / "nowhere")
    assert "nowhere cannot be written" in message


def test_without_a_results_file_nothing_is_said_to_be_measured(tmp_path):
    document = tmp_path / "scaling.md"
    document.write_text(f"{BEGIN}\n{END}\n")
    draw_tables(document, None)
    text = document.read_text()
    assert "| each writer takes | not known | not known |" in text
    assert "this CPU" not in text and "Measured" not in text


def test_a_document_without_a_place_for_the_tables_is_refused(tmp_path):
    document = tmp_path / "scaling.md"
    document.write_text(f"{END}\n{BEGIN}\n")
    assert BEGIN in refused("--document", document)
    assert "cannot be read" in refused("--document", tmp_path / "none.md")


def test_a_results_file_that_is_named_has_to_be_there(tmp_path):
    document = tmp_path / "scaling.md"
    document.write_text(f"{BEGIN}\n{END}\n")
    assert "none.json is no results file" in refused("--document", document, "--record", tmp_path / "none.json")
    assert document.read_text() == f"{BEGIN}\n{END}\n"


def test_the_documents_tables_are_those_of_the_results_file():
    root = Path(__file__).resolve().parents[4]
    results = root / plan_document.RESULTS
    text = (root / "docs" / "scaling.md").read_text()
    tables = plan_document.drawn_tables(read_results(results) if results.exists() else None)
    assert text[text.index(BEGIN) : text.index(END)] == f"{BEGIN}\n{tables}\n"


def test_what_a_worker_holds_is_what_is_said_to_be_lost():
    assert workers._LINES_OF_AN_ACTOR == LINES_OF_A_WORKER
    assert recipe(Path(".")).choice.draws.count * LINES_OF_A_WORKER == plan_of(Job(5, 1.0, 4), COSTS).lost_samples


def test_the_arithmetic_of_the_models_is_what_a_counter_counts():
    import torch
    from diffusers import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    with torch.device("meta"), torch.no_grad():
        clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**vision, patch_size=14, projection_dim=768))
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        with FlopCounterMode(display=False) as of_clip:
            clip(pixel_values=torch.zeros(1, 3, 224, 224))
        with FlopCounterMode(display=False) as of_unet:
            unet(torch.zeros(1, 4, 64, 64), torch.zeros(1), torch.zeros(1, 77, 768))
    assert of_clip.get_total_flops() / 1e12 == pytest.approx(plan_document.CLIP_TFLOP, rel=0.01)
    assert of_unet.get_total_flops() / 1e12 == pytest.approx(plan_document.UNET_TFLOP, rel=0.01)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (duration(0.0005), "0.5 ms"),
        (duration(90), "90 s"),
        (duration(7200), "2 h"),
        (duration(150 * 365.25 * 86400), "150 years"),
        (size(999), "999 bytes"),
        (size(1_572_864), "1.57 MB"),
        (count(454_445), "454,445"),
        (count(45_444_500), "45.4 million"),
        (count(18_177_800_000), "18.2 billion"),
    ],
)
def test_amounts_read_well(text, expected):
    assert text == expected
