"""The command line: what it writes, what it prints, and that it starts without what it does not need."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from ip2p_fast import __version__, cli
from ip2p_fast.cli import main
from ip2p_fast.errors import MissingExtra
from ip2p_fast.images import load_image


@pytest.fixture(scope="module")
def model(tiny_pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tiny_pipeline.save_pretrained(path)
    (path / "defaults.json").write_text('{"steps": 2}')
    return path


@pytest.fixture
def pictures_here(pictures, tmp_path, monkeypatch):
    """a.png and b.png in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, picture in zip(("a.png", "b.png"), pictures, strict=False):
        picture.save(name)


@pytest.fixture
def edit(model, pictures_here):
    """Runs `ip2p-fast edit` with the small model; returns its exit status."""
    return lambda *arguments: main(
        ["edit", *map(str, arguments), "--model", str(model), "--device", "cpu", "--dtype", "float32"]
    )


def test_one_picture_to_a_file(edit, tmp_path, capsys):
    assert edit("a.png", "-p", "make it night", "-o", "night.png", "--seed", 7) == 0
    assert load_image("night.png").size == (16, 16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "night.png"]
    printed = capsys.readouterr()
    assert printed.out == "night.png\n" and "seed 7" in printed.err


def test_the_same_seed_gives_the_same_file_and_overwrites_it(edit):
    for name in ("one.png", "two.png", "one.png"):
        assert edit("a.png", "-p", "make it night", "-o", name, "--seed", 7) == 0
    np.testing.assert_array_equal(load_image("one.png"), load_image("two.png"))


def test_several_pictures_go_to_a_folder_and_match_single_edits(edit, tmp_path):
    (tmp_path / "out").mkdir()
    assert edit("a.png", "b.png", "-p", "make it night", "-o", "out", "--seed", 7, "--num-images", 2) == 0
    names = ["a.png", "a_2.png", "b.png", "b_2.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert edit("b.png", "-p", "make it night", "-o", "second.png", "--seed", 8) == 0
    second = np.asarray(load_image("second.png")).astype(int)
    assert np.abs(second - np.asarray(load_image("out/b_2.png"))).max() <= 1


def test_compare_puts_before_and_after_beside_the_output(edit):
    assert edit("b.png", "-p", "make it night", "-o", "night.jpg", "--compare") == 0
    width, height = load_image("night.jpg").size
    assert load_image("night_compare.png").size == (2 * width + 2, height)


def test_json_is_one_object_that_tells_how_to_repeat_the_run(edit, capsys, model):
    assert edit("a.png", "b.png", "-p", "make it night", "-o", ".", "--json") == 2  # would overwrite the inputs
    capsys.readouterr()
    assert edit("a.png", "-p", "make it night", "-o", "night.png", "--json", "--compare", "--text-guidance", 5) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["inputs"] == ["a.png"] and report["outputs"] == ["night.png"]
    assert report["compare"] == ["night_compare.png"]
    assert report["row_evaluations"] == 2 * 3
    assert 10**8 < report["peak_memory_bytes"] < 10**11
    assert {"load", "encode", "denoise", "decode", "save"} <= report["timings"].keys()
    settings = report["settings"]
    assert settings["instruction"] == "make it night" and settings["model"] == str(model)
    assert (settings["steps"], settings["text_guidance"], settings["image_guidance"]) == (2, 5.0, 1.5)
    assert (settings["sampler"], settings["device"], settings["dtype"]) == ("euler_a", "cpu", "float32")

    again = ["--seed", report["seed"], "--text-guidance", settings["text_guidance"], "--steps", settings["steps"]]
    assert edit("a.png", "-p", "make it night", "-o", "again.png", *again) == 0
    np.testing.assert_array_equal(load_image("night.png"), load_image("again.png"))


def test_savings_are_options(edit, capsys):
    savings = ["--guidance-interval", "0:0.8", "--guidance-refresh", 2, "--deep-refresh", 2, "--steps", 5]
    assert edit("a.png", "-p", "make it night", "-o", "night.png", "--json", *savings) == 0
    report = json.loads(capsys.readouterr().out)
    # 3, 1, 3, 1 and 1 rows; those of every second step are shallow
    assert (report["row_evaluations"], report["shallow_evaluations"]) == (7, 2)
    settings = report["settings"]
    assert settings["guidance_interval"] == [0.0, 0.8]
    assert (settings["guidance_refresh"], settings["deep_refresh"]) == (2, 2)


def test_a_mask_keeps_what_is_black(edit, pictures):
    Image.new("L", (16, 16), 0).save("mask.png")
    assert edit("a.png", "-p", "make it night", "-o", "kept.png", "--mask", "mask.png", "--size", 16) == 0
    np.testing.assert_array_equal(load_image("kept.png"), pictures[0])


def test_an_interrupt_leaves_nothing_behind(edit, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("PIL.Image.Image.save", interrupted)
    assert edit("a.png", "-p", "make it night", "-o", "night.png") == 130
    assert capsys.readouterr().err.split() == ["interrupted"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_failure_of_ours_is_one_line_and_a_traceback_only_with_debug(edit, monkeypatch, capsys):
    def failing(*_, **__):
        raise RuntimeError("a\nb")

    monkeypatch.setattr("ip2p_fast.editor.Editor.edit_many", failing)
    assert edit("a.png", "-p", "make it night", "-o", "night.png") == 1
    assert capsys.readouterr().err == "error: RuntimeError: a b (--debug shows where)\n"
    assert edit("a.png", "-p", "make it night", "-o", "night.png", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"
    for arguments in ([], ["--help"]):
        assert main(arguments) == 0
        assert "edit " in capsys.readouterr().out


def test_info_tells_what_was_built_and_why(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["ip2p-fast"] == __version__ and facts["backends"]["torch"] == "available"
    assert {"extension", "why", "kernels"} <= facts["kernels"].keys()
    assert {"cpu"} < facts["devices"].keys() and facts["versions"]["pillow"] == Image.__version__
    assert main(["info"]) == 0
    assert f"ip2p-fast {__version__}" in " ".join(capsys.readouterr().out.split())


class Entry:
    """An entry point: counts how often it is loaded."""

    def __init__(self, load) -> None:
        self.load_it, self.loads = load, 0

    def load(self):
        self.loads += 1
        return self.load_it()


def raising(error):
    def load():
        raise error

    return load


def serving():
    import typer

    app = typer.Typer()

    @app.command()
    def start(port: int = 1) -> None:
        """Serve edits."""
        print("port", port)

    return app


@pytest.fixture
def others(monkeypatch):
    entries = {
        "serve": Entry(serving),
        "app": Entry(raising(ModuleNotFoundError("no gradio", name="gradio"))),
        "export": Entry(raising(MissingExtra("exporting", "export"))),
        "distill": Entry(raising(OSError("libfoo.so is broken"))),
    }
    monkeypatch.setattr(cli, "_others", lambda: entries)
    return entries


def test_commands_of_other_packages_load_only_when_asked_for(others, capsys):
    assert main(["info"]) == 0
    assert [entry.loads for entry in others.values()] == [0, 0, 0, 0]
    assert main(["serve", "--port", "3"]) == 0
    assert "port 3" in capsys.readouterr().out
    assert [entry.loads for entry in others.values()] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    "command, reason",
    [
        ("app", 'ip2p-fast app needs gradio: pip install "ip2p-fast[app]"'),
        ("export", 'exporting needs an optional dependency: pip install "ip2p-fast[export]"'),
        ("distill", "ip2p-fast distill cannot start: OSError: libfoo.so is broken"),
    ],
)
def test_a_command_that_cannot_be_imported_says_why_in_one_line(others, capsys, command, reason):
    assert main([command, "--port", "3"]) == 2
    assert capsys.readouterr().err == f"error: {reason}\n"


def test_help_lists_commands_that_cannot_be_imported_too(others, capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*others, "Serve edits.", "needs gradio"))


def test_starting_imports_no_framework():
    program = """
    import sys
    import ip2p_fast, ip2p_fast.cli, ip2p_fast.images, ip2p_fast.tokenizer, ip2p_fast.checkpoints
    print([name for name in ("torch", "diffusers", "transformers", "huggingface_hub") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
