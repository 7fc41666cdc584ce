"""The examples of the JSON API page hold: requests are taken, answers have the fields and types shown."""

from __future__ import annotations

import json
import re

import pytest

from places import ROOT

EXAMPLE = re.compile(r"<!-- (request|answer): (.+?) -->\n```json\n(.+?)\n```", re.DOTALL)
PAIR = {"target": "gull", "rival": "emu"}
TEXT = (ROOT / "docs" / "reference" / "http-api.md").read_text(encoding="utf-8")


def examples(kind):
    return {where: json.loads(text) for found, where, text in EXAMPLE.findall(TEXT) if found == kind}


def same_shape(shown, given, where=""):
    """Fields and types of what is shown are those of what is given; a mapping by names is compared by its values."""
    if shown is None or given is None:
        return
    if isinstance(shown, dict):
        assert isinstance(given, dict), where
        if where.endswith((".values", ".template")):
            shown, given = ({"": next(iter(d.values()))} for d in (shown, given))
        assert list(shown) == list(given), where
        for name in shown:
            same_shape(shown[name], given[name], f"{where}.{name}")
    elif isinstance(shown, list):
        assert isinstance(given, list), where
        if shown and given:
            same_shape(shown[0], given[0], f"{where}[]")
    elif isinstance(shown, int | float) and not isinstance(shown, bool):
        assert isinstance(given, int | float), where
    else:
        assert type(shown) is type(given), where


@pytest.fixture
def answers(client, png):
    requests = examples("request")
    file = ("a.png", png)
    return {
        "Problem": client.post("/api/explain", files={"image": ("letter.pdf", b"%PDF")}),
        "POST /api/predict": client.post("/api/predict", files=[("images", file)] * 2, data={"top": 2}),
        "POST /api/explain": client.post(
            "/api/explain", files={"image": file}, data={"target": "gull", "rival": "emu"}
        ),
        "POST /api/rank": client.post("/api/rank", json=requests["POST /api/rank"]),
        "GET /api/separate": client.get("/api/separate?first=gull&second=emu"),
        "GET /api/classes": client.get("/api/classes"),
        "GET /api/classes/{name}": client.get("/api/classes/gull"),
        "POST /api/classes": client.post("/api/classes", json=requests["POST /api/classes"]),
        "PATCH /api/class-images/{name}": client.patch(
            "/api/class-images/gull",
            files=[("images", sent) for sent in (file, ("b.png", png), ("letter.pdf", b"%PDF"))],
        ),
        "GET /api/class-images/{name}": client.get("/api/class-images/gull"),
        "GET /api/about": client.get("/api/about"),
        "GET /healthz": client.get("/healthz"),
        "PATCH /api/classes/gull": client.patch("/api/classes/gull", json=requests["PATCH /api/classes/gull"]),
    }


def test_answers_are_as_shown(answers):
    shown = examples("answer")
    assert set(shown) == set(answers) - {"PATCH /api/classes/gull"}
    for where, example in shown.items():
        assert answers[where].status_code == (
            415 if where == "Problem" else 201 if where == "POST /api/classes" else 200
        )
        same_shape(example, answers[where].json(), where)
    assert answers["Problem"].json() == shown["Problem"]


def test_requests_are_taken(answers):
    assert set(examples("request")) <= set(answers)
    added = answers["POST /api/classes"].json()["classes"][0]
    assert (added["name"], added["values"]["size::small"]) == ("herring gull", 0.05)
    changed = answers["PATCH /api/classes/gull"].json()["classes"][0]
    assert (changed["name"], changed["values"]["crown::red"]) == ("common gull", 0)
    ranked = answers["POST /api/rank"].json()
    assert len(ranked["classes"]) == 3
    assert {r["attribute"]: r["reading"] for r in ranked["reasons"]}["crown::red"] == 0.1


def test_every_path_and_status_is_described(client):
    for path in client.get("/api/openapi.json").json()["paths"]:
        assert path.replace("{name}", "NAME") in TEXT
    for status in (400, 403, 404, 405, 408, 409, 413, 415, 421, 422, 429, 500):
        assert f"| {status} |" in TEXT
