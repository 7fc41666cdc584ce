"""``unseen review`` and ``predict --html`` at the command line; the page has its own tests."""

from __future__ import annotations

import csv

import pytest

from review_tools import draw_images, model
from unseen.review import Review, Verdict


@pytest.fixture(scope="module")
def saved(tiny_backbone, tmp_path_factory):
    return model(tiny_backbone).save(tmp_path_factory.mktemp("model") / "saved")


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    draw_images(tmp_path / "images", 4)[1].write_bytes(b"no image")
    return tmp_path / "images"


def test_a_review_is_exported_without_a_page_and_resumed(unseen, saved, images, tmp_path):
    pytest.importorskip("fastapi", reason="needs unseen[app]")
    status, out, err = unseen("review", saved, images, "--device", "cpu", "--export", tmp_path / "a.csv")
    assert status == 0
    assert "review-images: 4 images, 0 reviewed" in out
    assert "1.jpg" in err
    with Review(tmp_path / "review-images") as review:
        for row in review.order[:2]:
            review.decide([row], review.items[row].answer or Verdict(None))
        first = review.final(review.order[0])
    status, out, _ = unseen("review", saved, images, "--device", "cpu", "--export", tmp_path / "a.csv")
    assert "4 images, 2 reviewed" in out
    assert "of a random sample of 2" in out
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["reviewed"] == "1" for row in rows) == 2
    assert rows[review.order[0]]["class"] == first
    status, _, err = unseen("review", saved, images, "--export", tmp_path / "a.json")
    assert (status, err.count("\n")) == (2, 1)
    status, _, err = unseen("review", saved, images, "--device", "cpu", "-o", images, "--export", tmp_path / "b.csv")
    assert status == 2
    assert "the folder is not empty and contains no review — pass another --output" in err


def test_hints_name_options_of_review(unseen, saved, images, tmp_path, monkeypatch):
    """Not those of the commands that share its code: predict has --restart and --list, serve --allow-host."""
    pytest.importorskip("fastapi", reason="needs unseen[app]")
    from starlette.testclient import TestClient

    from unseen.cli import reviewing
    from unseen.ground.journal import Journal
    from unseen.recognizer.stream import _journal
    from unseen.review.begin import PREDICTIONS

    _journal(tmp_path / "r" / PREDICTIONS).parent.mkdir(parents=True)
    with Journal(_journal(tmp_path / "r" / PREDICTIONS)) as begun:
        begun.append({"facts": {"model": "another"}})
    status, _, err = unseen("review", saved, images, "--device", "cpu", "-o", tmp_path / "r")
    assert status == 2
    assert "repeat the original command, or pass another --output" in err
    served = []
    monkeypatch.setattr(reviewing, "serve_application", lambda application, *rest: served.append(application))
    unseen("review", saved, images, "--device", "cpu", "-o", tmp_path / "s", "--allow-host", "Birds.example")
    with TestClient(served[0]) as client:
        assert client.get("/", headers={"Host": "birds.example"}).status_code == 200
        refused = client.get("/", headers={"Host": "evil.example"})
        assert (refused.status_code, refused.json()["hint"]) == (421, "start it with --allow-host NAME")
    listed = tmp_path / "list.csv"
    listed.write_text("file\na.jpg\n")
    status, _, err = unseen("review", saved, listed, "--device", "cpu", "-o", tmp_path / "t", "--export", "x.csv")
    assert f"not an image — if it lists images: unseen predict RUN --list {listed}" in err


def test_a_contact_sheet_is_one_file(unseen, saved, images, tmp_path):
    page = tmp_path / "sheet.html"
    status, out, err = unseen("predict", saved, images, "--device", "cpu", "--html", page)
    assert (status, out.strip()) == (1, f"{page}: 4 images")
    assert "see the page" in err
    text = page.read_text()
    assert text.count('"thumbnail": "') == 3
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["images", "sheet.html"]
    status, _, err = unseen("predict", saved, images, "--html", page)
    assert (status, "already exists" in err) == (2, True)
    status, _, err = unseen("predict", saved, images, "--html", tmp_path / "x.csv")
    assert (status, "not an .html file" in err) == (2, True)
    status, _, err = unseen("predict", saved, images, "--html", tmp_path / "x.html", "-o", tmp_path / "x.csv")
    assert (status, "two outputs" in err) == (2, True)
