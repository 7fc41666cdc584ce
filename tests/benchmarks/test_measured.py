"""Tables of results in the docs."""

from __future__ import annotations

import json

import pytest

from benchmarks import measured


def test_docs_hold_the_tables_of_the_result_files():
    assert measured.fill_docs(write=False) == [], "run `python -m benchmarks --docs`"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "docs").mkdir()
    result = {"tables": {"Times": [{"side": "ours", "s": 0.51234}, {"side": "a|b", "s": 12345, "note": None}]}}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "r.json").write_text(json.dumps(result))
    page = tmp_path / "docs" / "p.md"
    page.write_text("before\n<!-- measured: results/r.json | Times -->\nold\n<!-- end -->\nafter\n")
    return tmp_path


def test_fill_replaces_what_stands_between_the_marks(project):
    assert measured.fill_docs(write=True, root=project) == ["docs/p.md"]
    assert (project / "docs" / "p.md").read_text() == (
        "before\n<!-- measured: results/r.json | Times -->\n\n"
        "| side | s | note |\n| --- | --- | --- |\n| ours | 0.5123 |  |\n| a\\|b | 12,345 |  |\n\n<!-- end -->\nafter\n"
    )
    assert measured.fill_docs(write=True, root=project) == []


def test_what_was_not_measured_says_so(project):
    (project / "results" / "r.json").unlink()
    assert "Not yet measured." in measured.fill(project / "docs" / "p.md", project)


def test_no_such_table(project):
    (project / "results" / "r.json").write_text('{"tables": {"Other": []}}')
    with pytest.raises(SystemExit, match='no table "Times"; it has Other'):
        measured.fill(project / "docs" / "p.md", project)


def test_a_mark_names_a_file_of_results(project):
    page = project / "docs" / "p.md"
    page.write_text(page.read_text().replace("results/r.json", "r.json"))
    with pytest.raises(SystemExit, match=r'"r\.json" is not in a folder of results'):
        measured.fill(page, project)


def test_exponent_of_powers():
    assert measured.exponent([1, 10, 100], [3, 30, 300]) == pytest.approx(1)
    assert measured.exponent([1, 2, 4, 8], [5, 20, 80, 320]) == pytest.approx(2)


def test_alternately_takes_the_median_of_each_side():
    clock = iter([0, 1, 1, 11, 11, 14, 14, 24, 24, 26, 26, 46])
    found = measured.alternately({"a": lambda: None, "b": lambda: None}, 3, clock=lambda: next(clock), warm_up=0)
    assert found == {"a": 2, "b": 10}
