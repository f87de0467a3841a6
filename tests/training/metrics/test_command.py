"""`ip2p-fast evaluate benchmark` from the files of a benchmark to its table, with small random models."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ip2p_fast import Editor
from ip2p_fast.cli import main
from ip2p_fast.training.dataset.pairs.clip_scores import ClipScorer
from ip2p_fast.training.metrics.benchmarks import BENCHMARKS, Models
from ip2p_fast.training.metrics.edited import make_edits, seed_of
from ip2p_fast.training.metrics.emu_edit import write_emu_edit
from ip2p_fast.training.metrics.figures import summarise, table
from ip2p_fast.training.metrics.magicbrush import read_magicbrush, write_magicbrush
from ip2p_fast.training.metrics.perceptual import squeezenet_features
from ip2p_fast.training.metrics.pie_bench import write_pie_bench
from ip2p_fast.training.metrics.pixels import at_size_of, l1, l2, psnr, ssim
from ip2p_fast.training.metrics.similarity import similarities


@pytest.fixture(scope="module")
def folders(emu_cases, magicbrush_cases, pie_cases, tmp_path_factory):
    root = tmp_path_factory.mktemp("benchmarks")
    for name in BENCHMARKS:
        (root / name).mkdir()
    write_emu_edit(emu_cases, root / "emu-edit")
    write_magicbrush(magicbrush_cases, root / "magicbrush")
    write_pie_bench(pie_cases, root / "pie-bench")
    return root


@pytest.fixture
def evaluate(folders, clip_folder, capsys):
    """Runs the command on a layout; gives its status, standard output and standard error."""

    def run(layout, *options, clip=clip_folder, folder=None):
        given = ["evaluate", "benchmark", folder or folders / layout, "--layout", layout, "--clip", clip]
        status = main([*map(str, [*given, "--device", "cpu", *options])])
        return status, *capsys.readouterr()

    return run


def pictures(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def save(picture, folder, name):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def test_emu_edit_from_files_to_figures(evaluate, emu_cases, tiny_model, vit_folder, clip_folder, tmp_path):
    edits, out = tmp_path / "edits", tmp_path / "results.json"
    options = ["--model", tiny_model, "--steps", 2, "--edited", edits, "--dino", vit_folder, "--batch", 2]
    status, printed, _ = evaluate("emu-edit", *options, "--out", out, "--json")
    figures = json.loads(printed)
    assert status == 0 and figures["cases"] == 5
    assert list(figures["columns"]) == ["CLIP_dir", "CLIP_img", "CLIP_out", "L1", "DINO"]
    assert list(figures["groups"]) == ["add", "remove", "style"]
    assert len(pictures(edits)) == 5

    # the first case by hand: its noise, its edit and its scores
    case, clip = emu_cases[0], ClipScorer(clip_folder)
    request = {"seed": seed_of(case.id, 0), "steps": 2}
    by_hand = Editor.from_pretrained(tiny_model, device="cpu").edit(case.source, case.instruction, **request).images[0]
    edited = np.asarray(by_hand)
    np.testing.assert_array_equal(np.asarray(Image.open(edits / f"{case.id}.png")), edited)
    written = json.loads(out.read_text())
    scores = written.pop("by_case")[case.id]
    assert written == figures
    expected = similarities(clip, (case.source_caption, case.target_caption), case.source, edited)
    assert scores["CLIP_dir"] == pytest.approx(expected.direction, abs=1e-6)
    assert scores["CLIP_img"] == pytest.approx(expected.image, abs=1e-6)
    assert scores["CLIP_out"] == pytest.approx(expected.text_image_1, abs=1e-6)
    assert scores["L1"] == pytest.approx(l1(at_size_of(edited, case.source), case.source))
    assert scores["group"] == "add" and -1 <= scores["DINO"] <= 1

    everything = json.loads(out.read_text())["by_case"].values()
    for name in figures["columns"]:
        low, high = figures["overall"][name]["interval"]
        mean = figures["overall"][name]["mean"]
        assert low < mean < high
        assert mean == pytest.approx(np.mean([one[name] for one in everything]))
        added = [one[name] for one in everything if one["group"] == "add"]
        assert figures["groups"]["add"][name]["mean"] == pytest.approx(np.mean(added))


def test_edits_that_are_there_are_not_made_again(evaluate, tiny_model, tmp_path):
    options = ["--model", tiny_model, "--steps", 2, "--edited", tmp_path / "edits", "--json"]
    first = evaluate("emu-edit", *options, "--limit", 2)
    assert first[0] == 0 and len(made := pictures(tmp_path / "edits")) == 2
    marked = tmp_path / "edits" / next(iter(made))
    Image.new("RGB", (24, 24), "red").save(marked)
    status, printed, _ = evaluate("emu-edit", *options, "--batch", 3)
    assert status == 0 and json.loads(printed)["cases"] == 5
    after = pictures(tmp_path / "edits")
    assert len(after) == 5
    assert np.asarray(Image.open(marked)).tolist() == [[[255, 0, 0]] * 24] * 24
    # what the second run made is what one run without a stop makes
    assert evaluate("emu-edit", *options[:-2], tmp_path / "whole")[0] == 0
    whole = pictures(tmp_path / "whole")
    assert {name for name in whole if whole[name] != after[name]} == {marked.name}


def test_edits_with_other_settings_want_another_folder(evaluate, tiny_model, tmp_path):
    options = ["--model", tiny_model, "--edited", tmp_path / "edits", "--limit", 1]
    assert evaluate("emu-edit", *options, "--steps", 2)[0] == 0
    status, _, error = evaluate("emu-edit", *options, "--steps", 1)
    assert status == 2 and "choose another --edited" in error
    (tmp_path / "edits" / "edits.json").unlink()
    status, _, error = evaluate("emu-edit", *options, "--steps", 2)
    assert status == 2 and "made elsewhere" in error


def test_magicbrush_of_perfect_edits(evaluate, magicbrush_cases, vit_folder, tmp_path):
    for case in magicbrush_cases:
        save(case.target, tmp_path, f"{case.id}.png")
    status, printed, _ = evaluate("magicbrush", "--edited", tmp_path, "--dino", vit_folder, "--json")
    figures = json.loads(printed)
    assert status == 0 and list(figures["groups"]) == ["turn 1", "turn 2", "turn 3"]
    means = {name: figure["mean"] for name, figure in figures["overall"].items()}
    assert means["L1"] == means["L2"] == 0
    assert means["CLIP-I"] == pytest.approx(1, abs=1e-6) and means["DINO"] == pytest.approx(1, abs=1e-5)
    assert abs(means["CLIP-T"]) < 0.9
    assert figures["groups"]["turn 2"]["L1"]["cases"] == 2


def test_magicbrush_is_scored_against_the_target(evaluate, magicbrush_cases, tmp_path):
    for case in magicbrush_cases:
        save(case.source, tmp_path, f"{case.id}.png")
    status, printed, _ = evaluate("magicbrush", "--edited", tmp_path, "--json")
    overall = json.loads(printed)["overall"]
    assert status == 0 and overall["DINO"] is None
    for name, metric in (("L1", l1), ("L2", l2)):
        expected = np.mean([metric(case.source, case.target) for case in magicbrush_cases])
        assert overall[name]["mean"] == pytest.approx(expected)


def test_whole_sessions_go_on_from_their_own_edits(evaluate, folders, tiny_model, tmp_path):
    edits = tmp_path / "edits"
    status, printed, _ = evaluate(
        "magicbrush", "--multi-turn", "--model", tiny_model, "--steps", 2, "--edited", edits, "--batch", 4, "--json"
    )
    figures = json.loads(printed)
    assert status == 0 and figures["cases"] == 3
    assert list(figures["groups"]) == ["1 turn", "2 turns", "3 turns"]
    names = {f"{name}.png" for name in ("30/30_1", "139/139_1", "139/139_iter_2", "139/139_iter_3")}
    assert set(pictures(edits)) == names | {"242/242_1.png", "242/242_iter_2.png"}
    last = next(case for case in read_magicbrush(folders / "magicbrush", True) if case.id == "139/139_iter_3")
    editor = Editor.from_pretrained(tiny_model, device="cpu")
    before = Image.open(edits / "139" / "139_iter_2.png")
    again = editor.edit(before, last.instruction, steps=2, seed=seed_of(last.id, 0)).images[0]
    np.testing.assert_array_equal(np.asarray(again), np.asarray(Image.open(edits / "139" / "139_iter_3.png")))


def test_pie_bench_looks_outside_the_mask(evaluate, pie_cases, vit_folder, tmp_path):
    for case in pie_cases:
        edited = case.source.copy()
        edited[case.mask] = 255 - edited[case.mask]
        edited[200:210, 20:30] = 0
        save(edited, tmp_path, f"{case.id}.png")
    torch.manual_seed(1)
    torch.save(squeezenet_features().state_dict(), tmp_path / "squeeze.pth")
    options = ["--edited", tmp_path, "--dino", vit_folder, "--lpips", tmp_path / "squeeze.pth"]
    status, printed, _ = evaluate("pie-bench", *options, "--json")
    figures = json.loads(printed)
    assert status == 0
    assert list(figures["columns"]) == ["structure", "PSNR", "LPIPS", "MSE", "SSIM", "CLIP_whole", "CLIP_edited"]
    expected = {"PSNR": [], "MSE": [], "SSIM": []}
    for case in pie_cases[:2]:  # the third's mask covers the picture
        edited = case.source.copy()
        edited[200:210, 20:30] = 0
        for name, metric in (("PSNR", psnr), ("MSE", l2), ("SSIM", ssim)):
            expected[name].append(metric(edited, case.source, case.mask))
    for name, values in expected.items():
        figure = figures["overall"][name]
        assert figure["cases"] == 2 and figure["mean"] == pytest.approx(np.mean(values), rel=1e-9)
    assert figures["overall"]["structure"]["cases"] == 3
    assert figures["overall"]["LPIPS"]["mean"] > 0
    assert figures["groups"]["9 change style"]["SSIM"] is None


def test_pie_bench_scores_captions_from_zero_up(clip_folder, pie_cases):
    models = Models(ClipScorer(clip_folder))
    scores = [BENCHMARKS["pie-bench"].score(models, case, case.source) for case in pie_cases]
    assert all(score["CLIP_whole"] >= 0 and score["CLIP_edited"] >= 0 for score in scores)
    assert scores[0]["PSNR"] == math.inf and "LPIPS" not in scores[0]


def test_the_table_says_what_is_not_measured(evaluate, pie_cases, tmp_path):
    for case in pie_cases:
        save(case.source, tmp_path, f"{case.id}.jpg")
    status, printed, _ = evaluate("pie-bench", "--edited", tmp_path)
    assert status == 0
    assert "LPIPS is not measured: it needs --lpips" in printed
    assert "structure is not measured: it needs --dino" in printed
    head, first, *_ = printed.splitlines()
    assert "MSE x10^4 (-)" in head and "SSIM x10^2 (+)" in head
    assert first.startswith("0 random") and first.count("not measured") == 2


def test_infinite_figures_are_valid_json(evaluate, pie_cases, tmp_path):
    for case in pie_cases:
        save(case.source, tmp_path, f"{case.id}.png")
    out = tmp_path / "out.json"
    status, printed, _ = evaluate("pie-bench", "--edited", tmp_path, "--json", "--out", out)

    def refuse(name):
        raise AssertionError(name)

    assert status == 0
    assert json.loads(printed, parse_constant=refuse)["overall"]["PSNR"]["mean"] == "inf"
    by_case = json.loads(out.read_text(), parse_constant=refuse)["by_case"]
    assert by_case[pie_cases[0].id]["PSNR"] == "inf" and by_case[pie_cases[2].id]["PSNR"] is None


def test_a_table_multiplies_by_the_power_it_names():
    pie = BENCHMARKS["pie-bench"]
    found = {"a": ("0 random", {"MSE": 0.0025, "CLIP_whole": 0.25}), "b": ("0 random", {"MSE": 0.0025})}
    summary = summarise(pie, found)
    row = table(pie.columns, summary).splitlines()[-1]
    assert row.startswith("overall") and "25 [25, 25]" in row
    assert summary["overall"]["MSE"].cases == 2 and summary["overall"]["CLIP_whole"].cases == 1
    assert summary["overall"]["SSIM"] is None


def test_noise_depends_on_the_case_and_the_seed_alone(tiny_editor, emu_cases, tmp_path):
    assert len({seed_of(case.id, seed) for case in emu_cases for seed in range(3)}) == 15
    make_edits(tiny_editor, emu_cases, tmp_path / "a", {"steps": 1}, batch=5)
    made = make_edits(tiny_editor, emu_cases[::-1], tmp_path / "b", {"steps": 1, "sampler": None}, batch=1)
    assert made == 5 and pictures(tmp_path / "a") == pictures(tmp_path / "b")


@pytest.mark.parametrize(
    ("layout", "options", "said"),
    [
        ("emu", ["--edited", "x"], "choose one of emu-edit, magicbrush, pie-bench"),
        ("emu-edit", [], "give --model"),
        ("emu-edit", ["--edited", "x", "--multi-turn"], "--multi-turn belongs to the layout magicbrush"),
        ("pie-bench", ["--edited", "x", "--split", "test"], "--split belongs to the layout emu-edit"),
        ("emu-edit", ["--edited", "x", "--split", "train"], "there is test"),
        ("emu-edit", ["--edited", "nowhere"], "lacks edited pictures: 5, the first is test-add-0.png"),
        ("emu-edit", ["--edited", "x", "--out", "no/where.json"], "there is no folder no"),
        ("emu-edit", ["--edited", "x", "--device", "tpu"], "there is no device 'tpu'"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(layout, options, said, evaluate, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = folders / layout if layout in BENCHMARKS else folders / "emu-edit"
    status, printed, error = evaluate(layout, *options, folder=folder)
    assert status == 2 and not printed
    assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_wrong_layout_says_what_the_folder_holds(evaluate, folders):
    status, _, error = evaluate("pie-bench", "--edited", "x", folder=folders / "magicbrush")
    assert status == 2 and "no mapping_file.json; there is edit_sessions.json" in error


def test_models_are_loaded_before_anything_is_edited(evaluate, tiny_model, tmp_path):
    options = ["--model", tiny_model, "--edited", tmp_path / "edits"]
    status, _, error = evaluate("emu-edit", *options, clip=tmp_path / "absent")
    assert status == 2 and "no CLIP" in error and not (tmp_path / "edits").exists()
    status, _, error = evaluate("emu-edit", *options, "--lpips", tmp_path / "absent.pth")
    assert status == 2 and "cannot be read as weights" in error and not (tmp_path / "edits").exists()
    status, _, error = evaluate("emu-edit", "--model", tmp_path / "absent", "--edited", tmp_path / "edits")
    assert status == 2 and not (tmp_path / "edits").exists()
