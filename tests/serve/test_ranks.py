"""Ranks and priors over HTTP and on the page."""

from __future__ import annotations

import csv
import json
import time
from contextlib import ExitStack

import pytest

import chromium
from serve_tools import client_of, drawn, encoded, served
from unseen.classes.prior import Prior
from unseen.classes.taxonomy import Taxonomy
from unseen.model.predictions import Extent, columns

TAXA = Taxonomy(("family", "genus"), (("F", "a"), ("F", "a"), ("F", "b"), ("G", "c"), ("G", "c"), ("", "")))


@pytest.fixture
def ranked(recognizer, monkeypatch):
    from dataclasses import replace

    recognizer.table = replace(recognizer.table, taxonomy=TAXA)
    monkeypatch.setattr(recognizer, "threshold", 0.999)
    return recognizer


@pytest.fixture
def clients():
    with ExitStack() as stack:
        yield lambda recognizer, **settings: stack.enter_context(client_of(recognizer, **settings))


@pytest.fixture
def prior(tmp_path):
    rows = ("class,place,5,6", "emu,coast,40,1", "emu,lake,1,1", "gull,coast,1,40", "gull,lake,1,1")
    (tmp_path / "prior.csv").write_text("\n".join(rows))
    return Prior.read(tmp_path / "prior.csv")


def test_predictions_and_explanations_have_ranks(ranked, clients):
    client = clients(ranked)
    image = {"images": ("x.png", encoded(drawn(1)), "image/png")}
    (found,) = client.post("/api/predict", files=image).json()["predictions"]
    wanted = ranked.predict([drawn(1)], workers=0)[0]
    assert [t["rank"] for t in found["ranks"]] == ["family", "genus"]
    assert found["answer"] == wanted.answer
    assert found["ranks"][0]["confidence"] == pytest.approx(wanted.ranks[0].confidence)
    why = client.post("/api/explain", files={"image": image["images"]}).json()
    assert why["ranks"] == found["ranks"]
    assert why["answer_rank"] == wanted.answer_rank
    assert client.get("/api/about").json()["ranks"] == ["family", "genus"]
    assert client.get("/api/classes").json()["classes"][0]["ranks"] == {"family": "F", "genus": "a"}
    refused = client.post("/api/predict", files=image, data={"place": "coast"})
    assert (refused.status_code, refused.json()["error"]) == (422, "this server has no prior")


def test_a_renamed_class_keeps_its_prior_and_its_ranks(ranked, prior, clients):
    client = clients(ranked, prior=prior)
    image = {"images": ("x.png", encoded(drawn(1)), "image/png")}

    def weighed(name):
        asked = {"place": "coast", "month": "5", "only": [name, "gull"]}
        (found,) = client.post("/api/predict", files=image, data=asked).json()["predictions"]
        return {c["name"]: c["confidence"] for c in found["classes"]}

    before = weighed("emu")
    assert client.patch("/api/classes/emu", json={"name": "Emu of the coast"}).status_code == 200
    after = weighed("Emu of the coast")
    assert after["Emu of the coast"] == pytest.approx(before["emu"])
    rows = {c["name"]: c for c in client.get("/api/classes").json()["classes"]}
    assert rows["Emu of the coast"]["ranks"]["family"] in {"F", "G"}
    assert (rows["Emu of the coast"]["former"], "former" in rows["gull"]) == (["emu"], False)
    assert (rows["Emu of the coast"]["origin"], "origin" in rows["gull"]) == ("emu", False)
    assert client.patch("/api/classes/Emu of the coast", json={"name": "emu"}).status_code == 200
    assert weighed("emu") == pytest.approx(before)


def test_a_prior_by_place_and_month(ranked, prior, clients):
    client = clients(ranked, prior=prior)
    image = {"images": ("x.png", encoded(drawn(1)), "image/png")}
    found = {}
    for month in ("5", "June", "any"):
        asked = client.post("/api/predict", files=image, data={"place": "coast", "month": month})
        (found[month],) = asked.json()["predictions"]
        wanted = ranked.predict([drawn(1)], workers=0, prior=prior.at("coast", month))[0]
        assert found[month]["classes"][0]["confidence"] == pytest.approx(wanted.best.confidence)
        assert found[month]["without_prior"]["name"] == wanted.weighed.without.name
    assert found["5"]["classes"] != found["June"]["classes"]
    data = {"place": "coast", "month": "5", "top": "6"}
    why = client.post("/api/explain", files={"image": image["images"]}, data=data).json()
    assert why["target"]["name"] == why["classes"][0]["name"]
    assert why["prior"] == found["5"]["prior"]
    about = client.get("/api/about").json()
    assert (about["prior"], about["places"], about["months"]) == (True, ["coast", "lake"], [5, 6])
    assert client.delete("/api/classes/emu").status_code == 200  # which the prior names
    assert client.post("/api/predict", files=image).status_code == 200
    wrong = client.post("/api/predict", files=image, data={"place": "cost"})
    assert wrong.status_code == 422
    assert 'no place "cost"' in wrong.json()["error"]


@pytest.mark.browser
@pytest.mark.skipif(chromium.PATH is None, reason="no Chromium")
def test_the_page_shows_ranks_and_chooses_place_and_month(ranked, prior, tmp_path):
    file = tmp_path / "0.png"
    file.write_bytes(encoded(drawn(1)))
    with served(ranked, prior=prior) as url, chromium.Chromium(tmp_path / "profile") as page:
        page.go(f"{url}/?")
        page.wait("document.querySelectorAll('#class-list li').length")
        page.choose("#file", file)
        page.wait("document.querySelectorAll('#ranking li').length")
        text = "document.querySelector('#{}').textContent".format
        wanted = ranked.predict([drawn(1)], workers=0, prior=prior.at("any", "any"))[0]
        assert page.eval(text("taxa")).startswith(f"family: {wanted.ranks[0].name} ")
        assert page.eval(text("prior")).startswith(f"From the image alone: {wanted.weighed.without.name}, ")
        assert wanted.said.split(",")[0].lower() in page.eval(text("unknown")).lower()
        before = page.eval(text("prior"))
        for name, value in (("place", "coast"), ("month", "5")):
            node = f"document.querySelector('#{name}')"
            page.eval(f"{node}.value = '{value}'; {node}.dispatchEvent(new Event('change'))")
        page.wait(f"{text('prior')} !== {json.dumps(before)}")
        assert page.eval("document.querySelector('#month').selectedOptions[0].textContent") == "May"
        page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        page.eval("document.querySelector('#tab-batch').click()")
        page.choose("#files", file)
        page.wait("document.querySelectorAll('#batch-table tbody tr').length === 1")
        page.wait("!document.querySelector('#batch-csv').disabled")
        page.eval("document.querySelector('#batch-csv').click()")
        for _ in range(100):
            if (tmp_path / "saved" / "predictions.csv").is_file():
                break
            time.sleep(0.1)
    (row,) = csv.DictReader((tmp_path / "saved" / "predictions.csv").open(encoding="utf-8-sig"))
    assert list(row) == list(columns(Extent(5, ranks=("family", "genus"), prior=True)))
    assert row["family"] in ("F", "G")
    assert 0 <= float(row["confidence_without_prior"]) <= 1
