"""Triplets to pairs of pictures: what is drawn, what is kept, and work that is killed."""

import io
import json
import multiprocessing
import os
import random
import resource
import signal
import socket
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from pair_work import DIRECTION, PER_SHARD, recipe, work
from PIL import Image
from typer.testing import CliRunner

from ip2p_fast.benchmarks.peers.prompt_to_prompt import PromptToPrompt
from ip2p_fast.errors import BadInput, ModelError
from ip2p_fast.training.dataset.forms.record import faults
from ip2p_fast.training.dataset.forms.shards import read_shard
from ip2p_fast.training.dataset.pairs.clip_scores import ClipScorer
from ip2p_fast.training.dataset.pairs.generator import PairGenerator
from ip2p_fast.training.dataset.pairs.making import Choice, make_pairs, read_triplets
from ip2p_fast.training.dataset.pairs.pair_store import MANIFEST, PairStore, whole_shards
from ip2p_fast.training.dataset.pairs.samples import Draws, draw_samples
from ip2p_fast.training.dataset.pairs.text_control import Control
from ip2p_fast.training.dataset.pairs.workers import maker

TRIPLETS = 10
CAPTIONS = [(f"a watercolour of {i} cats", f"a watercolour of {i} dogs at night") for i in range(TRIPLETS)]
PRELOADED = [
    "diffusers.models.autoencoders.autoencoder_kl",
    "ip2p_fast.backends.torch_backend",
    "ip2p_fast.training.dataset.pairs.clip_scores",
    "transformers.models.clip.modeling_clip",
]
"""What takes seconds to import, and holds no state: processes that are killed start with it."""
BROKEN = 3
"""The line of the file, from 0, that is no triplet."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, a CLIP and triplets."""
    root = tmp_path_factory.mktemp("pairs")
    tiny.text_to_image(root / "source").save_pretrained(root / "base")
    tiny.save_clip(root / "clip")
    lines = [json.dumps({"caption": a, "edit": "make it night", "output": b}) for a, b in CAPTIONS]
    lines.insert(BROKEN, '{"caption": "cut')
    (root / "triplets.jsonl").write_text("\n".join(lines) + "\n")
    everything = recipe(root)
    everything = replace(everything, choice=Choice(Draws(count=4), filtered=False))
    made = maker(everything)(read_triplets(root / "triplets.jsonl"))
    directions = [record.similarities.direction for outcome in made for record in outcome.records]
    (root / DIRECTION).write_text(str(np.median(directions)))
    return root


@pytest.fixture(scope="module")
def whole(folder):
    """The set that an undisturbed run makes."""
    work(folder, folder / "whole")
    return folder / "whole"


def manifest(out):
    return json.loads((out / MANIFEST).read_text())


def records(out):
    return [record for shard in whole_shards(out) for record in read_shard(out / shard["name"])]


def assert_same(out, whole):
    """Every file of one set is in the other, with the same bytes; the manifest with the same content."""
    names = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    assert manifest(out) == manifest(whole)
    for name in names:
        if name != MANIFEST:
            assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def run(folder, out, made, **options):
    with PairStore(out, made.settings, PER_SHARD) as store:
        return make_pairs(read_triplets(folder / "triplets.jsonl"), maker(made), store, **options)


def test_every_line_and_every_sample_is_counted(whole):
    counts = manifest(whole)["counts"]
    samples = sum(count for name, count in counts.items() if name.startswith("samples "))
    assert counts["done"] == TRIPLETS and counts["unreadable"] == 1
    assert samples == 4 * TRIPLETS
    assert counts["samples kept"] == len(records(whole)) > TRIPLETS
    assert counts["samples low direction"] > 0


def test_every_record_is_whole_and_holds_what_it_was_made_with(whole):
    for record in records(whole):
        assert faults(record) == []
        assert (record.caption, record.edited_caption) in CAPTIONS
        sample = next(
            s for s in draw_samples((record.caption, record.edited_caption), Draws(4), 0) if s.seed == record.seed
        )
        assert (record.p, record.cfg) == (sample.p, sample.cfg)
        assert 0.1 <= record.p <= 0.9 and 7.5 <= record.cfg <= 15
        assert record.similarities.direction >= float((whole.parent / DIRECTION).read_text())


def test_of_each_triplet_the_best_directions_come_first_and_no_more_than_asked(whole):
    of_triplet = {}
    for record in records(whole):
        of_triplet.setdefault(record.caption, []).append(record.similarities.direction)
    assert all(len(kept) <= 2 and kept == sorted(kept, reverse=True) for kept in of_triplet.values())
    assert max(map(len, of_triplet.values())) == 2


def test_shards_end_with_a_triplet_and_are_of_the_size_asked(whole):
    shards = whole_shards(whole)
    assert all(PER_SHARD <= shard["records"] <= PER_SHARD + 1 for shard in shards[:-1])
    assert len(shards) > 2
    assert not list(whole.glob(".*"))


@pytest.mark.parametrize("change", [{"at_once": 1}, {"at_once": 7}])
def test_what_is_in_flight_together_changes_nothing(folder, whole, tmp_path, change):
    made = recipe(folder, **change)
    run(folder, tmp_path / "out", made)
    assert whole_shards(tmp_path / "out") == whole_shards(whole)


def test_a_pair_is_the_same_wherever_its_triplet_stands(folder, whole, tmp_path):
    lines = (folder / "triplets.jsonl").read_text().splitlines()
    (tmp_path / "reversed.jsonl").write_text("\n".join(reversed(lines)))
    made = recipe(folder)
    with PairStore(tmp_path / "out", made.settings, PER_SHARD) as store:
        make_pairs(read_triplets(tmp_path / "reversed.jsonl"), maker(made), store)

    def contents(out):
        return {(r.caption, r.seed): (r.input_image, r.edited_image, r.similarities) for r in records(out)}

    assert contents(tmp_path / "out") == contents(whole)


def test_without_the_filter_the_first_samples_are_kept(folder, tmp_path):
    made = recipe(folder)
    made = replace(made, choice=replace(made.choice, filtered=False))
    run(folder, tmp_path / "out", made)
    for i, captions in enumerate(CAPTIONS):
        first = [sample.seed for sample in draw_samples(captions, Draws(4), 0)[:2]]
        assert [r.seed for r in records(tmp_path / "out") if r.caption == captions[0]] == first, i


def test_the_pictures_are_those_of_the_straightforward_script(folder):
    """The original's way in diffusers: one sample at a time, four rows, maps in memory, the same noise."""
    made = recipe(folder, steps=6)
    generator = PairGenerator.from_pretrained(made.base, made.drawing, "cpu", "float32")
    script = PromptToPrompt.from_pretrained(made.base)
    samples = draw_samples(CAPTIONS[0], Draws(3), 0)
    for sample, ours in generator.generate((sample, CAPTIONS[0], sample) for sample in samples):
        rng = np.random.Generator(np.random.Philox(key=sample.seed))
        noise = np.stack([rng.standard_normal((4, 8, 8), dtype=np.float32) for _ in range(7)])
        theirs = script.pair(CAPTIONS[0], noise, sample.p, sample.cfg)
        for a, b in zip(ours, theirs, strict=True):
            assert (np.abs(a.astype(int) - b) <= 1).mean() >= 0.999


def test_similarities_are_the_cosines_of_the_clips_embeddings(folder):
    """By transformers' own processing of each text and picture, one at a time."""
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    clip, words = CLIPModel.from_pretrained(folder / "clip"), CLIPTokenizer.from_pretrained(folder / "clip")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        texts = [
            clip(**words(text, return_tensors="pt"), pixel_values=torch.zeros(1, 3, 16, 16)).text_embeds[0]
            for text in CAPTIONS[0]
        ]
        images = [
            clip(
                **words("", return_tensors="pt"),
                pixel_values=((torch.from_numpy(picture).permute(2, 0, 1) / 255 - mean) / std)[None],
            ).image_embeds[0]
            for picture in pictures
        ]
    cosine = torch.nn.functional.cosine_similarity
    (scored,) = ClipScorer(folder / "clip").score(CAPTIONS[0], [pictures[0]], [pictures[1]])
    expected = [
        cosine(images[0], texts[0], dim=0),
        cosine(images[1], texts[1], dim=0),
        cosine(images[1] - images[0], texts[1] - texts[0], dim=0),
        cosine(images[0], images[1], dim=0),
    ]
    assert list(vars(scored).values()) == pytest.approx([float(value) for value in expected], abs=1e-5)


def test_strict_stops_at_the_line_that_is_no_triplet(folder, tmp_path):
    with pytest.raises(BadInput, match=f"line {BROKEN + 1}: not JSON"):
        run(folder, tmp_path / "out", recipe(folder), strict=True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"caption": "a", "edit": "b", "output": ""}', "empty"),
        ('{"caption": "a", "edit": " ", "output": "c"}', "empty"),
        (json.dumps({"caption": "x" * 401, "edit": "b", "output": "c"}), "too long"),
        (json.dumps({"caption": "a " * 90, "edit": "b", "output": "c"}), "too long"),
        ('{"caption": "a", "edit": "b"}', "unreadable"),
        ("[1]", "unreadable"),
    ],
)
def test_triplets_that_cannot_be_drawn_are_counted(folder, tmp_path, line, reason):
    (tmp_path / "one.jsonl").write_text(line + "\n")
    made = recipe(folder)
    with PairStore(tmp_path / "out", made.settings, PER_SHARD) as store:
        counts = make_pairs(read_triplets(tmp_path / "one.jsonl"), maker(made), store)
    assert counts == {reason: 1} and records(tmp_path / "out") == []


def test_captions_that_cannot_be_replaced_word_for_word_are_counted(folder, tmp_path):
    lines = [("a cat", "a dog"), ("a cat", "a dog at night")]
    text = "\n".join(json.dumps({"caption": a, "edit": "do it", "output": b}) for a, b in lines)
    (tmp_path / "two.jsonl").write_text(text)
    made = recipe(folder, control=Control("replace"))
    with PairStore(tmp_path / "out", made.settings, PER_SHARD) as store:
        counts = make_pairs(read_triplets(tmp_path / "two.jsonl"), maker(made), store)
    assert counts["done"] == 1 and counts["not word for word"] == 1


def test_a_set_with_other_settings_is_not_gone_on_with(folder, whole):
    made = recipe(folder, steps=5)
    with pytest.raises(BadInput, match="made with other settings: steps 4 then, 5 now$"):
        PairStore(whole, made.settings, PER_SHARD, resume=True)
    with pytest.raises(BadInput, match="is there already: go on with --resume"):
        PairStore(whole, recipe(folder).settings, PER_SHARD)


def test_an_edit_model_cannot_be_the_base(tmp_path):
    tiny.pipeline(tmp_path / "source").save_pretrained(tmp_path / "eight")
    with pytest.raises(ModelError, match="8 input channels, but a text-to-image model needs 4"):
        PairGenerator.from_pretrained(tmp_path / "eight", recipe(tmp_path).drawing)


def test_what_is_no_clip_cannot_judge(folder):
    with pytest.raises(ModelError, match="not a CLIP"):
        ClipScorer(folder / "base" / "text_encoder")


def test_a_clip_with_another_tokenizer_cannot_judge(folder, tmp_path):
    tiny.save_clip(tmp_path / "clip")
    config = json.loads((tmp_path / "clip" / "config.json").read_text())
    path = tmp_path / "clip" / "tokenizer.json"
    whole = json.loads(path.read_text())
    first = config["text_config"]["vocab_size"]
    whole["added_tokens"].append(
        {"id": first, "content": "<new>", "special": False, "single_word": False}
        | {"lstrip": False, "rstrip": False, "normalized": True}
    )
    path.write_text(json.dumps(whole))
    with pytest.raises(ModelError, match="the text tower"):
        ClipScorer(tmp_path / "clip")


def test_a_full_disk_loses_nothing_and_the_set_is_finished_later(folder, whole, tmp_path):
    """No file may grow beyond a limit in this process, as on a full disk; without the limit it goes on."""
    made = recipe(folder)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    make = maker(made)
    with PairStore(tmp_path / "out", made.settings, PER_SHARD) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            with pytest.raises(BadInput, match="cannot be written: File too large; all before is kept"):
                make_pairs(read_triplets(folder / "triplets.jsonl"), make, store)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert 0 < manifest(tmp_path / "out")["inputs"] < TRIPLETS
    work(folder, tmp_path / "out")
    assert_same(tmp_path / "out", whole)


@pytest.mark.parametrize("kills", [6, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_kills_at_random_moments_neither_lose_nor_repeat_a_record(folder, whole, tmp_path, kills):
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)

    def start(out):
        process = server.Process(target=work, args=(folder, out))
        process.start()
        return process

    start(tmp_path / "warm").join()
    begun = time.monotonic()
    start(tmp_path / "timed").join()
    length = time.monotonic() - begun

    chance = random.Random(kills)
    reached, runs = [], 0
    while kills:
        out = tmp_path / f"killed-{runs}"
        runs += 1
        while kills:
            process = start(out)
            process.join(chance.uniform(0, length))
            if process.is_alive():
                kills -= 1
                process.kill()
            process.join()
            reached.append(manifest(out)["inputs"] if (out / MANIFEST).exists() else 0)
            if reached[-1] == TRIPLETS + 1:
                break
        work(folder, out)
        assert_same(out, whole)
    assert max(reached) > 0


def test_a_cluster_that_is_not_there_is_named_at_once(folder):
    from ip2p_fast.training.dataset.pairs.workers import on_ray

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and nobody listens
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(BadInput, match=f"no Ray cluster at '{address}'"):
            on_ray(recipe(folder), address)


def test_a_missing_file_of_triplets_is_found_before_anything_is_made(tmp_path):
    with pytest.raises(BadInput, match="missing.jsonl is not there"):
        read_triplets(tmp_path / "missing.jsonl")


def processes():
    """Process id and command line of everything that runs."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield int(folder.name), (folder / "cmdline").read_text()


@pytest.mark.timeout(300)
def test_a_lost_ray_worker_changes_nothing(folder, whole, tmp_path):
    """Two actors on a local cluster; the process of one is killed in the middle."""
    import ray

    from ip2p_fast.training.dataset.pairs.workers import on_ray

    made = recipe(folder)
    make = on_ray(made, "local", workers=2)
    killed = []

    def advance(inputs, counts):
        if inputs == 2:
            killed.append(next(pid for pid, name in processes() if name.startswith("ray::_Actor")))
            os.kill(killed[0], signal.SIGKILL)

    try:
        with PairStore(tmp_path / "out", made.settings, PER_SHARD) as store:
            make_pairs(read_triplets(folder / "triplets.jsonl"), make, store, advance=advance)
    finally:
        ray.shutdown()
    assert killed
    assert_same(tmp_path / "out", whole)


def test_the_command_makes_a_set_and_says_what_became_of_everything(folder, tmp_path):
    from ip2p_fast.training.dataset.cli import app

    options = ["--base", str(folder / "base"), "--clip", str(folder / "clip"), "--samples", "3", "--steps", "3"]
    options += ["--text-image", "-1", "--direction", "-1", "--image", "-1", "--most", "1", "--limit", "4"]
    options += ["--control", "auto", "--blend", "cats,dogs", "--reweight", "night=2", "--self-replace-steps", "0.4"]
    command = ["pairs", str(folder / "triplets.jsonl"), "-o", str(tmp_path / "out"), *options, "--format", "folder"]
    result = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    printed = json.loads(result.stdout)
    assert printed["pairs"] == printed["done"] == 3 and printed["unreadable"] == 1
    picture = Image.open(io.BytesIO(records(tmp_path / "out")[0].edited_image))
    assert picture.size == (16, 16)
    assert len(list((tmp_path / "out" / "folder").glob("*/*_1.jpg"))) == 3
