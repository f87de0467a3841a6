"""The paper's route through the pocket world: captions, a writer, generated pairs, training from text-to-image."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_size import TINY

from ip2p_fast import Editor
from ip2p_fast.checkpoints import POCKET
from ip2p_fast.errors import BadInput
from ip2p_fast.training.dataset.forms.formats import read_pairs
from ip2p_fast.training.dataset.pairs.making import Numbered
from ip2p_fast.training.dataset.triplets.triplet import Triplet
from ip2p_fast.training.pocket import language, paper_data
from ip2p_fast.training.pocket.paper_data import sources_of
from ip2p_fast.training.pocket.paper_route import ABLATIONS, PAPER, shares, trained_folder
from ip2p_fast.training.pocket.publish import publish_base, publish_clip, publish_index, publish_vae
from ip2p_fast.training.pocket.reader import Reader, save_reader
from ip2p_fast.training.pocket.scene import edits
from ip2p_fast.training.pocket.sizes import PaperData
from ip2p_fast.training.pocket.split import draw_pair, is_held_out
from ip2p_fast.training.pocket.stages import Work, train_stage
from ip2p_fast.training.pocket.tokenizer import build_tokenizer
from ip2p_fast.training.pocket.unet import Latents, build_unet
from ip2p_fast.training.pocket.vae import build_vae
from ip2p_fast.training.trainer.parts import grow

SHIPPED_WRITER = POCKET.with_name("pocket-writer")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained pocket model of the smallest size, with the shipped writer: an untrained one writes no triplet."""
    from ip2p_fast.training.pocket.clip import build_clip

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tokenizer = build_tokenizer()
    publish_vae(build_vae(TINY), folder)
    publish_clip(build_clip(TINY, tokenizer), tokenizer, TINY, folder)
    publish_index(TINY, folder)
    publish_base(build_unet(TINY, in_channels=4), TINY, folder)
    save_reader(Reader(TINY.pixels), folder / "reader")
    folder.with_name("model-writer").symlink_to(SHIPPED_WRITER, target_is_directory=True)
    # CLIP's choice has tests of its own; this one is untrained
    anything = {"text_image": -1.0, "direction": -1.0, "image": -1.0, "most": 2}
    (folder / "clip" / "thresholds.json").write_text(json.dumps(anything))
    return folder


@pytest.fixture(scope="module")
def routed(model, tmp_path_factory):
    told = []
    work = Work(TINY, tmp_path_factory.mktemp("runs"), model, watch=lambda *row: told.append(row))
    figures = {stage: train_stage(stage, work, PAPER) for stage in PAPER.stages}
    return work, figures, told


def test_pairs_are_drawn_until_as_many_are_kept_as_were_asked_for(routed):
    work, figures, told = routed
    assert figures["pairs"]["pairs_kept"] == TINY.paper_data.pairs == figures["unfiltered"]["unfiltered_kept"]
    assert figures["pairs"]["pairs_drawn"] < TINY.paper_data.captions * TINY.paper_data.samples
    assert 0 < figures["pairs"]["pairs_audited"] <= TINY.paper_data.pairs
    assert len(list(read_pairs(work.runs / "tiny-pairs"))) >= TINY.paper_data.pairs
    assert {stage for stage, _, _ in told} >= {"triplets", "pairs", "unfiltered"}
    assert all(0 <= done <= 1 for _, done, _ in told)


def test_a_second_run_draws_no_pair_anew(routed):
    work, figures, _ = routed
    stamps = {path: path.stat().st_mtime_ns for path in (work.runs / "tiny-pairs").glob("*.tar")}
    assert train_stage("pairs", work, PAPER) == figures["pairs"]
    assert stamps == {path: path.stat().st_mtime_ns for path in (work.runs / "tiny-pairs").glob("*.tar")}


def test_the_model_edits_and_brings_its_judges(routed):
    work, _, _ = routed
    folder = trained_folder(work, "paper")
    picture = Image.new("RGB", (TINY.pixels, TINY.pixels), "teal")
    assert Editor.from_pretrained(folder, device="cpu").edit(picture, "make it night", steps=2).images[0].size
    assert {"clip", "reader", "vae"} <= {path.name for path in folder.iterdir()}


def test_every_ablation_is_a_model_of_its_own(routed):
    work, _, _ = routed
    weights = [
        load_file(trained_folder(work, name) / "unet" / "diffusion_pytorch_model.safetensors")["conv_out.weight"]
        for name in ("full", "tenth", "unfiltered")
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])
    assert all(
        torch.load(work.runs / f"tiny-{name}.pt", weights_only=True)["step"] == TINY.ablation.steps
        for name in ABLATIONS
    )


def test_ablations_see_their_share_of_the_pairs():
    def numbered(count, first):
        rows = torch.arange(first, first + count)
        return Latents(rows, torch.zeros(1, 77, 4), rows[:, None, None], 1.0)

    seen = {name: data.latents.tolist() for name, data in shares(numbered(200, 0), numbered(200, 1000))}
    assert {name: len(rows) for name, rows in seen.items()} == {
        "full": 200,
        "tenth": 20,
        "hundredth": 2,
        "unfiltered": 200,
    }
    assert seen["hundredth"] == seen["full"][:2] and min(seen["unfiltered"]) == 1000


def test_an_edited_caption_of_a_held_out_scene_is_not_drawn():
    held = next(
        (pair.scene, edit.scene)
        for pair in (draw_pair("train", i) for i in range(1000))
        for edit in edits(pair.scene)
        if is_held_out(edit.scene)
    )
    free = draw_pair("train", 0)
    lines = [
        Numbered(i, Triplet(language.caption(before), "an edit", language.caption(after)))
        for i, (before, after) in enumerate([held, (free.scene, free.edit.scene)])
    ]
    first, second = paper_data._training_lines(lines)
    assert first.triplet is None and "held-out" in first.fault
    assert second == lines[1]


def test_too_few_triplets_are_said_to_be_too_few(routed, tmp_path):
    work, _, _ = routed
    data = PaperData(captions=8, pairs=1000, samples=2, steps=2)
    (tmp_path / "few.jsonl").write_text("\n".join((work.runs / "tiny-triplets.jsonl").read_text().splitlines()[:1]))
    with pytest.raises(BadInput, match="2 pairs of the 1000"):
        paper_data.draw_paper_pairs(
            tmp_path / "few.jsonl", tmp_path / "out", data, sources_of(work.model), True, "cpu", lambda *_: None
        )


def test_a_clip_without_thresholds_gets_its_own(model, monkeypatch):
    thresholds = model / "clip" / "thresholds.json"
    before = thresholds.read_text()
    thresholds.unlink()
    monkeypatch.setattr(paper_data, "_CALIBRATED_ON", 8)
    try:
        sources_of(model)
        assert set(json.loads(thresholds.read_text())) == {"text_image", "direction", "image", "most"}
    finally:
        thresholds.write_text(before)


def test_the_shipped_model_has_the_shipped_sources():
    assert vars(sources_of(POCKET)) == {"base": "pocket-base", "clip": "pocket", "writer": "pocket-writer"}


def test_a_stage_before_its_turn_names_what_it_needs(tmp_path):
    work = Work(TINY, tmp_path, POCKET)
    with pytest.raises(BadInput, match="train pocket pairs --route paper"):
        train_stage("paper", work, PAPER)
    with pytest.raises(BadInput, match="dataset triplets"):
        train_stage("pairs", work, PAPER)


def test_new_channels_change_nothing_until_they_are_trained():
    torch.manual_seed(0)
    base = build_unet(TINY, in_channels=4).eval()
    x, text = torch.randn(2, 4, 4, 4), torch.randn(2, 77, TINY.text_width)
    with torch.no_grad():
        before = base(x, torch.tensor([500, 20]), text).sample
        grow(base)
        after = base(torch.cat([x, torch.randn(2, 4, 4, 4)], 1), torch.tensor([500, 20]), text)
    torch.testing.assert_close(after.sample, before)


def test_pairs_of_a_set_are_read_forwards_alone(routed):
    work, _, _ = routed
    data = Latents(**torch.load(work.runs / "tiny-pairs-latents.pt", weights_only=True))
    assert data.texts.shape == (TINY.paper_data.pairs, 1, 1) and data.texts.min() >= 1
    assert data.latents.shape == (TINY.paper_data.pairs, 2, 4, TINY.latents, TINY.latents)
