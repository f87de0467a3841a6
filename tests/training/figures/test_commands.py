"""The commands from models to results files, figures and the document, with small models and few edits."""

import json
import re

import pytest
from PIL import Image

from ip2p_fast.benchmarks.results import read_results
from ip2p_fast.benchmarks.table import ROOT
from ip2p_fast.cli import main
from ip2p_fast.training.figures.document import FIGURES, FIGURES_OF_PAPER, redrawn_text


@pytest.fixture
def evaluate(capsys):
    """Runs a command; gives its status, standard output and standard error."""

    def run(*words):
        status = main(["evaluate", *map(str, words)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def own(tiny_model, tiny_base, clip_folder, pairs_file):
    """Options that put small models and own data in place of the pocket world."""
    common = ["--clip", clip_folder, "--data", pairs_file, "--steps", 2]
    return {
        "curves": ["curves", "--model", tiny_model, "--base", tiny_base, *common],
        "ablations": ["ablations", f"full={tiny_model}", f"tenth={tiny_model}", *common],
        "grid": ["grid", "--model", tiny_model, *common],
        "compare": ["compare", "--model", tiny_model, "--base", tiny_base, *common],
    }


SMALL = {
    "curves": ["--limit", 3, "--scales", "1.0,1.6", "--strengths", "0.5,1.0"],
    "ablations": ["--limit", 3, "--scales", "1.0,1.6"],
    "grid": ["--limit", 3, "--image-scales", "1.0,1.5", "--text-scales", "2,4", "--scene", 1],
    "compare": ["--scenes", 2, "--iterations", 3],
}


@pytest.fixture(scope="module")
def measured(own, tmp_path_factory):
    """The results of every command, the pocket model's where a reader is needed."""
    folder = tmp_path_factory.mktemp("results")
    for name, options in SMALL.items():
        assert main([*map(str, ["evaluate", *own[name], *options, "-o", folder / f"{name}.json"])]) == 0
    for name in ("limits", "bias"):
        assert main([*map(str, ["evaluate", name, "--per-kind", 1, "--steps", 4, "-o", folder / f"{name}.json"])]) == 0
    return folder


def values(folder, name):
    return {row.id: row for row in read_results(folder / f"{name}.json").rows}


def is_drawn(path):
    picture = Image.open(path).convert("RGB")
    return min(picture.size) > 150 and len(picture.getcolors(maxcolors=1 << 24)) > 20


def test_every_command_draws_its_figure(measured):
    assert all(is_drawn(measured / f"{name}.png") for name in FIGURES)


def test_curves_have_every_point_of_both_methods(measured):
    rows = values(measured, "curves")
    names = {name.removeprefix("curves.") for name in rows}
    points = ("instructpix2pix.s_i_1", "instructpix2pix.s_i_1_6", "sdedit.strength_0_5", "sdedit.strength_1")
    assert names == {f"{point}.{measure}" for point in points for measure in ("direction", "image")}
    assert all(len(row.detail["values"].split()) == row.detail["edits"] == 3 for row in rows.values())
    assert rows["curves.sdedit.strength_1.direction"].detail["settings"]["guidance"] == 7.5


def test_the_results_file_says_how_to_run_it_again(measured, own):
    rerun = read_results(measured / "curves.json").rerun
    assert rerun.startswith("ip2p-fast evaluate curves --model ") and "--strengths 0.5,1.0" in rerun
    assert read_results(measured / "ablations.json").rerun.startswith("ip2p-fast evaluate ablations full=")


def test_ablated_models_are_curves_by_their_names(measured):
    rows = values(measured, "ablations")
    assert {row.detail["curve"] for row in rows.values()} == {"full", "tenth"}
    full, tenth = (rows[f"ablations.{name}.s_i_1_6.image"] for name in ("full", "tenth"))
    assert full.value == tenth.value  # here they are one model


def test_limits_and_bias_are_of_the_same_edits(measured):
    limits, bias = values(measured, "limits"), values(measured, "bias")
    for kind in ("setting", "count", "remove"):
        changed = [row.value for name, row in bias.items() if name.startswith(f"bias.{kind}.")]
        assert limits[f"limits.{kind}.kept"].value == float(not any(changed))


def test_everything_is_redrawn_from_results_files(measured, tmp_path, evaluate):
    document = tmp_path / "results.md"
    document.write_text((ROOT / "docs" / "results.md").read_text())
    options = ["--results", measured, "--document", document, "--pictures", tmp_path / "figures"]
    status, printed, error = evaluate("figures", *options)
    assert status == 0 and not error and len(printed.splitlines()) == len(FIGURES) + 1
    text = document.read_text()
    for name, figure in FIGURES.items():
        assert is_drawn(tmp_path / "figures" / f"{name}.png")
        assert f"![Figure {figure.number}](figures/{name}.png)" in text
    assert "| InstructPix2Pix | s_I 1.6 | 3 |" in text and "| count | 1 |" in text
    assert text.count("again: `ip2p-fast evaluate") == len(FIGURES)
    assert redrawn_text(measured, document, tmp_path / "figures") == text


def test_a_figure_can_be_a_pdf(measured, tmp_path, evaluate):
    (tmp_path / "limits.json").write_bytes((measured / "limits.json").read_bytes())
    document = tmp_path / "results.md"
    document.write_text((ROOT / "docs" / "results.md").read_text())
    options = ["--results", tmp_path, "--document", document, "--pictures", tmp_path, "--pdf"]
    assert evaluate("figures", *options)[0] == 0
    assert (tmp_path / "limits.pdf").read_bytes().startswith(b"%PDF") and not (tmp_path / "limits.png").exists()


def test_figures_that_are_not_measured_are_named(tmp_path, evaluate):
    document = tmp_path / "results.md"
    document.write_text((ROOT / "docs" / "results.md").read_text())
    options = ["--results", tmp_path, "--document", document, "--pictures", tmp_path / "figures"]
    status, printed, error = evaluate("figures", *options)
    assert status == 0 and printed.split() == [str(document)]
    assert len(re.findall(r"measure it with ip2p-fast evaluate (\w+)", error)) == len(FIGURES)
    assert document.read_text().count("Not measured yet") == len(FIGURES)


def test_the_document_says_what_the_repositorys_results_say():
    document, pictures = ROOT / "docs" / "results.md", ROOT / "docs" / "figures"
    assert redrawn_text(FIGURES_OF_PAPER, document, pictures) == document.read_text()
    for name in FIGURES:
        assert (pictures / f"{name}.png").is_file() == (FIGURES_OF_PAPER / f"{name}.json").is_file()


def test_a_document_without_a_marker_is_refused(tmp_path, evaluate):
    document = tmp_path / "results.md"
    document.write_text((ROOT / "docs" / "results.md").read_text().replace("<!-- bias:end -->", ""))
    status, _, error = evaluate("figures", "--results", tmp_path, "--document", document)
    assert status == 2 and "needs one line <!-- bias:begin --> and" in error


def test_claims_are_one_json_list(measured, evaluate):
    status, printed, error = evaluate("claims", "--results", measured, "--json")
    found = json.loads(printed)
    assert status == 0 and len(found) == 7 and all({"claim", "holds", "interval"} <= set(claim) for claim in found)
    measurable = [claim for claim in found if claim["holds"] is not None]
    assert all(len(claim["interval"]) == 2 for claim in measurable) and measurable
    assert "no curve 'hundredth'" in error


def test_curves_of_the_pocket_world_have_the_ground_truths_figures(tmp_path, evaluate):
    options = ["--limit", 2, "--scales", "1.5", "--strengths", "0.5", "--steps", 4, "-o", tmp_path / "curves.json"]
    status, printed, _ = evaluate("curves", *options, "--picture", tmp_path / "curves.svg", "--json")
    found = json.loads(printed)
    assert status == 0 and "<svg" in (tmp_path / "curves.svg").read_text()
    for name in ("direction", "image", "success", "kept", "psnr"):
        assert f"curves.sdedit.strength_0_5.{name}" in found["values"]
    models = {row.detail["curve"]: row.detail["settings"]["model"] for row in values(tmp_path, "curves").values()}
    assert models == {"InstructPix2Pix": "pocket", "SDEdit": "pocket-base"}  # not where they lie on this machine


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["curves", "-o", "curves.png"], "a results file ends in .json"),
        (["curves", "--picture", "curves.txt"], "ends in .png, .pdf or .svg"),
        (["curves", "--strengths", "0.5,1.5"], "above 0 and at most 1"),
        (["curves", "--scales", "1.0,a"], "--scales has 'a' where a number is needed"),
        (["curves", "--scales", "1.0,1"], "every number may be there once"),
        (["curves", "--data", "nowhere"], "nowhere is not there"),
        (["ablations", "full"], "NAME=FOLDER is needed"),
        (["ablations", "full=a", "full=b"], "two models have one name"),
        (["grid", "--scene", "7", "--limit", "5"], "cases are 0 to 4"),
        (["compare", "--strength", "0"], "above 0 and at most 1"),
        (["limits", "--reader", "nowhere"], "no attribute reader in nowhere"),
        (["figures", "--document", "nowhere.md"], "nowhere.md cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(words, said, evaluate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, printed, error = evaluate(*words)
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert status == 2 and not printed and len(lines) == 1 and said in lines[0]
    assert not list(tmp_path.iterdir())
