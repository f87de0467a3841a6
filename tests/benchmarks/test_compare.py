"""`bench compare`: what counts as moved, and which files may be compared."""

import json

import pytest

from ip2p_fast.benchmarks.compare import ratio_interval
from ip2p_fast.benchmarks.results import Row, write_results
from ip2p_fast.cli import main


def row(name, value, low=None, high=None, better="higher"):
    return Row(name, value, "x", better, None, {} if low is None else {"p20": low, "p80": high})


BEFORE = [
    row("a.faster", 2.0, 1.9, 2.1),
    row("a.slower", 2.0, 1.9, 2.1),
    row("a.wavers", 2.0, 1.5, 2.5),
    row("a.hardly", 2.0, 1.999, 2.001),
    row("a.memory", 5.0, better="lower"),
    row("a.none", 0.0, better="lower"),
    row("a.gone", 1.0),
]
AFTER = [
    row("a.faster", 3.0, 2.9, 3.1),
    row("a.slower", 1.0, 0.9, 1.1),
    row("a.wavers", 2.4, 2.0, 2.8),
    row("a.hardly", 2.04, 2.039, 2.041),
    row("a.memory", 6.0, better="lower"),
    row("a.none", 1.0, better="lower"),
    row("a.new", 1.0),
]


@pytest.fixture
def files(tmp_path):
    def write(rows, name, **changes):
        path = tmp_path / name
        write_results(path, rows, rerun="ip2p-fast bench a")
        content = json.loads(path.read_text())
        content["machine"] |= changes
        path.write_text(json.dumps(content))
        return str(path)

    return write


def test_what_moved_beyond_noise_is_told_from_what_wavers(files, capsys):
    paths = files(BEFORE, "before.json"), files(AFTER, "after.json", load=9.0)
    assert main(["bench", "compare", *paths, "--json"]) == 0
    found = {change["id"]: change for change in json.loads(capsys.readouterr().out)["changes"]}
    assert {name for name, change in found.items() if change["moved"]} == {
        *("a.faster", "a.slower", "a.memory", "a.none")
    }
    assert {name for name, change in found.items() if change["worse"]} == {"a.slower", "a.memory", "a.none"}
    assert found["a.faster"]["share"] == 0.5
    assert found["a.new"]["before"] is None and found["a.gone"]["after"] is None


def test_a_regression_fails_only_where_it_is_asked_to(files, capsys):
    paths = files(BEFORE, "before.json"), files(AFTER, "after.json")
    assert main(["bench", "compare", *paths]) == 0
    assert main(["bench", "compare", *paths, "--fail-on-regression"]) == 1
    assert main(["bench", "compare", paths[0], paths[0], "--fail-on-regression"]) == 0
    assert "worse" in capsys.readouterr().out


def test_files_of_different_machines_are_compared_only_on_request(files, capsys):
    paths = files(BEFORE, "before.json"), files(BEFORE, "after.json", cpu="abacus")
    assert main(["bench", "compare", *paths]) == 2
    assert "different machines (cpu: " in capsys.readouterr().err
    assert main(["bench", "compare", *paths, "--any-machine"]) == 0


def sampled(name, values):
    """p20 and p80 of these would be apart, or meet, against what the samples say."""
    return Row(name, sorted(values)[len(values) // 2], "x", "higher", None, {"p20": 0, "p80": 99, "samples": values})


def test_samples_count_where_both_files_have_them(files, capsys):
    steady, scattered = [1.0, 1.01, 0.99, 1.0, 1.02], [0.5, 1.0, 1.6, 0.7, 1.4]
    before = [sampled("a.moved", steady), sampled("a.wavers", scattered)]
    after = [
        sampled("a.moved", [1.1 * value for value in steady]),
        sampled("a.wavers", [1.1 * value for value in scattered]),
    ]
    assert main(["bench", "compare", files(before, "before.json"), files(after, "after.json"), "--json"]) == 0
    found = {change["id"]: change for change in json.loads(capsys.readouterr().out)["changes"]}
    assert found["a.moved"]["moved"] and not found["a.wavers"]["moved"]


def test_the_interval_of_a_ratio_is_around_it_and_narrows_with_samples():
    before, after = [1.0, 2.0, 3.0] * 3, [2.0, 4.0, 6.0] * 3
    low, high = ratio_interval(before, after)
    assert low < 2 < high
    closer_low, closer_high = ratio_interval(before * 20, after * 20)
    assert closer_high - closer_low < high - low
    assert ratio_interval(before, after) == (low, high)
