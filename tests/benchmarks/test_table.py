"""The documents' tables come from the results files and from nowhere else."""

import pytest

from ip2p_fast.benchmarks.results import Row, write_results
from ip2p_fast.benchmarks.table import BEGIN, END, RESULTS, ROOT, check_tables, write_tables
from ip2p_fast.errors import BadInput

ROWS = [
    Row("cpu.tiny.speed", 2.25, "x", "higher", 2.0, {"what": "speed of the tiny one", "p20": 2.1, "p80": 2.5}),
    Row("cpu.tiny.memory", 7.0, "GB", "lower", 6.0, {"what": "memory of the tiny one"}),
    Row("cpu.tiny.share", 0.5, "share", "higher"),
]


@pytest.fixture
def checkout(tmp_path):
    """A folder with both documents and one results file."""
    (tmp_path / "docs").mkdir()
    for document in ("README.md", "docs/benchmarks.md"):
        (tmp_path / document).write_text(f"Before.\n\n{BEGIN}\n{END}\n\nAfter.\n")
    write_results(tmp_path / "results" / "tiny.json", ROWS, rerun="ip2p-fast bench tiny")
    return tmp_path


@pytest.fixture
def tables(checkout):
    """Draws the tables; returns the documents that changed."""
    return lambda: [path.name for path in write_tables(checkout, checkout / "results")]


def test_a_table_is_drawn_once_and_stays(checkout, tables):
    assert tables() == ["README.md", "benchmarks.md"]
    once = (checkout / "README.md").read_text()
    assert tables() == []
    assert (checkout / "README.md").read_text() == once
    assert once.startswith(f"Before.\n\n{BEGIN}\n") and once.endswith(f"\n{END}\n\nAfter.\n")
    check_tables(checkout, checkout / "results")


def test_the_readme_has_what_has_a_target_and_the_other_document_all(checkout, tables):
    tables()
    readme, full = (checkout / "README.md").read_text(), (checkout / "docs/benchmarks.md").read_text()
    assert "| speed of the tiny one | 2.25x | at least 2x | yes |" in readme
    assert "| memory of the tiny one | 7 GB | at most 6 GB | **no** |" in readme
    assert "cpu.tiny.share" not in readme
    assert "| cpu.tiny.share | `cpu.tiny.share` | 50.0% |" in full
    assert "2.1x to 2.5x" in full and "(**not met**)" in full and "`ip2p-fast bench tiny`" in full


@pytest.mark.parametrize("document", ["README.md", "docs/benchmarks.md"])
def test_a_figure_changed_by_hand_is_found(checkout, tables, document):
    tables()
    path = checkout / document
    path.write_text(path.read_text().replace("7 GB", "5 GB"))
    with pytest.raises(BadInput, match="bench table"):
        check_tables(checkout, checkout / "results")


def test_a_new_result_is_found(checkout, tables):
    tables()
    write_results(checkout / "results" / "other.json", [Row("a.b", 1.0, "s", "lower", 2.0)], rerun="again")
    with pytest.raises(BadInput, match="bench table"):
        check_tables(checkout, checkout / "results")


def test_figures_of_a_trial_are_refused(checkout, tables):
    write_results(checkout / "results" / "trial.json", ROWS, rerun="again", quick=True)
    with pytest.raises(BadInput, match="trial"):
        tables()


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"])
def test_a_document_without_one_place_for_its_table_is_refused(checkout, tables, text):
    (checkout / "README.md").write_text(text)
    with pytest.raises(BadInput, match=r"README\.md"):
        tables()


def test_a_folder_without_documents_is_refused(tmp_path):
    with pytest.raises(BadInput, match="checkout"):
        check_tables(tmp_path, tmp_path)


def test_this_projects_documents_and_results_agree():
    check_tables(ROOT, RESULTS)
