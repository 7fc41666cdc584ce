"""The API says what the recognizer says, and every error is one line with its mend."""

from __future__ import annotations

import json

import numpy as np
import pytest

from unseen.classes import ClassTable


def explained(client, png, **fields):
    answer = client.post("/api/explain", files={"picture": ("a.png", png)}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def predicted(client, png, **fields):
    answer = client.post("/api/predict", files={"pictures": ("a.png", png)}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"][0]


def test_predict_equals_the_recognizer(client, recognizer, png, picture):
    expected = next(recognizer.predict([picture], top=4)).as_dict()
    found = predicted(client, png, top=4)
    assert found["classes"] == expected["classes"]
    assert found["attributes"] == expected["attributes"]
    assert (found["picture"], found["unknown"], found["error"]) == ("a.png", False, None)


@pytest.mark.parametrize("among", ["seen", "unseen"])
def test_predict_among(client, recognizer, png, picture, among):
    expected = [c.name for c in next(recognizer.predict([picture], among=among)).candidates]
    assert [c["name"] for c in predicted(client, png, among=among)["classes"]] == expected


def test_only_and_exclude_spread_the_confidence_anew(client, png):
    every = {c["name"]: c for c in predicted(client, png, top=6)["classes"]}
    two = predicted(client, png, only=["emu", "b/c"])["classes"]
    assert {c["name"] for c in two} == {"emu", "b/c"}
    total = sum(every[c["name"]]["confidence"] for c in two)
    for c in two:
        assert c["confidence"] == pytest.approx(every[c["name"]]["confidence"] / total)
        assert c["score"] == pytest.approx(every[c["name"]]["score"], abs=1e-6)
    less = predicted(client, png, top=6, exclude=["emu", "gull"])["classes"]
    assert {c["name"] for c in less} == set(every) - {"emu", "gull"}
    assert client.get("/api/about").json()["classes"] == 6


def test_many_pictures_keep_their_order_and_errors_their_place(client, png):
    files = [("pictures", ("a.png", png)), ("pictures", ("b.txt", b"text")), ("pictures", ("c.png", png[:-400]))]
    found = client.post("/api/predict", files=[*files, ("pictures", ("d.png", png))]).json()["predictions"]
    assert [p["picture"] for p in found] == ["a.png", "b.txt", "c.png", "d.png"]
    assert [bool(p["error"]) for p in found] == [False, True, True, False]
    assert found[0]["classes"] == found[3]["classes"]


def test_explain_equals_the_recognizer(client, recognizer, png, picture):
    why = recognizer.explain(picture, target="gull", rival="b/c")
    found = explained(client, png, target="gull", rival="b/c")
    assert (found["target"]["name"], found["rival"]["name"]) == ("gull", "b/c")
    assert found["offset"] == pytest.approx(why.offset, abs=1e-6)
    assert found["crop"] == list(why.crop)
    assert (found["width"], found["height"]) == picture.size
    assert [r["attribute"] for r in found["reasons"]] == [r.attribute for r in why.reasons]
    for got, reason in zip(found["reasons"], why.reasons, strict=True):
        for name in ("score", "evidence", "against", "value", "rival_value"):
            assert got[name] == pytest.approx(getattr(reason, name), abs=1e-6)
        heat = why.heat(reason.attribute)
        np.testing.assert_allclose(np.array(got["heat"]) / 255, heat / heat.max(), atol=0.5 / 255 + 1e-9)
    assert found["classes"] == predicted(client, png)["classes"]


def test_preview_is_a_small_upright_jpeg(client, png):
    assert explained(client, png)["preview"] is None
    assert explained(client, png, preview="1")["preview"].startswith("data:image/jpeg;base64,/9j/")


def test_rank_without_corrections_is_the_prediction(client, png):
    look = explained(client, png)["look"]
    found = client.post("/api/rank", json={"look": look, "top": 6}).json()
    for got, expected in zip(found["classes"], predicted(client, png, top=6)["classes"], strict=True):
        assert got["name"] == expected["name"]
        assert got["confidence"] == pytest.approx(expected["confidence"], rel=1e-5)


def test_a_correction_changes_one_attribute_score(client, recognizer, png):
    look = explained(client, png)["look"]
    psi = np.array(look["attribute_scores"])
    low, high = recognizer.table.values.min(axis=0), recognizer.table.values.max(axis=0)
    bottom, top = np.percentile(psi, (5, 95))
    middle = float((low[2] + high[2]) / 2)
    for value, expected in ((float(low[2]), bottom), (float(high[2]), top), (middle, (bottom + top) / 2)):
        found = client.post("/api/rank", json={"look": look, "corrections": {"crown::red": value}, "top": 6}).json()
        reasons = {r["attribute"]: r for r in found["reasons"]}
        assert reasons["crown::red"]["score"] == pytest.approx(expected)
        assert reasons["crown::red"]["reading"] == pytest.approx(value)
        assert reasons["bill::flat"]["score"] == pytest.approx(psi[1])
        unit = recognizer.table.values / np.linalg.norm(recognizer.table.values, axis=1, keepdims=True)
        moved = psi.copy()
        moved[2] = expected
        for c in found["classes"]:
            i = recognizer.table.index(c["name"])
            assert c["score"] == pytest.approx(unit[i] @ moved + look["rest"][c["name"]], abs=1e-5)


def test_rank_takes_a_class_added_since(client, png):
    look = explained(client, png)["look"]
    twin = client.post("/api/classes", json={"name": "twin", "like": "gull"}).json()
    assert twin["warnings"] == ['"twin" has the same attributes as "gull": the two cannot be told apart.']
    found = {c["name"]: c for c in client.post("/api/rank", json={"look": look, "top": 9}).json()["classes"]}
    assert found["twin"]["score"] == pytest.approx(found["gull"]["score"], abs=1e-6)


def test_classes_come_and_go(client, recognizer, png):
    new = {"name": " new one ", "like": "emu", "values": {"crown::red": 0.9}}
    answer = client.post("/api/classes", json=new)
    assert answer.status_code == 201
    (entry,) = answer.json()["classes"]
    assert (entry["name"], entry["seen"], answer.json()["saved"]) == ("new one", False, False)
    expected = dict(zip(recognizer.table.attributes.names, recognizer.table.values[3], strict=True))
    assert entry["values"] == expected | {"crown::red": 0.9}
    assert client.get("/api/classes/new%20one").json() == entry
    assert "new one" in {c["name"] for c in predicted(client, png, top=9)["classes"]}
    changed = client.patch("/api/classes/new%20one", json={"name": "ñ/2", "values": {"size::small": 0.2}}).json()
    assert changed["classes"][0]["name"] == "ñ/2"
    assert client.get("/api/classes/ñ%2F2").json()["values"]["size::small"] == 0.2
    assert client.delete("/api/classes/ñ%2F2").status_code == 200
    assert [c["name"] for c in client.get("/api/classes").json()["classes"]] == list(recognizer.table.names)
    assert client.delete("/api/classes/b/c").status_code == 200
    assert "b/c" not in {c["name"] for c in predicted(client, png, top=9)["classes"]}


def test_classes_from_a_table_all_or_none(client, recognizer):
    names = recognizer.table.attributes.names
    good = ",".join(("class", *names)) + "\nx,1,0,0,0,0\ny,0,1,0,0.5,0\n"
    send = {"headers": {"Content-Type": "text/csv"}}
    answer = client.post("/api/classes", content=good, **send)
    assert answer.status_code == 201
    assert [c["name"] for c in answer.json()["classes"]] == ["x", "y"]
    assert client.get("/api/classes/y").json()["values"]["crown::blue"] == 0.5
    for bad, said in (
        (good.replace("x,", "z,").replace("0.5", "half"), '"half" is not a finite number'),
        (good, 'there is a class "x" already'),
        (good.replace("size::small", "weight").replace("x,", "z,"), '"weight" is no attribute'),
        ("name,a\nz,1\n", 'no column "class"'),
        ("class,a\n", "no class in the table"),
        ("class\nz\n", 'no column "bill::hooked"'),
        (good.replace("x,1", "z,1,1"), "row 2: 7 cells for 6 columns"),
        ("\xff".encode("latin-1"), "not UTF-8"),
    ):
        answer = client.post("/api/classes", content=bad, **send)
        assert answer.status_code in (409, 422)
        assert said in answer.json()["error"]
    assert len(client.get("/api/classes").json()["classes"]) == 8


def test_changes_are_saved_if_asked(recognizer, tmp_path):
    from serve_tools import client_of

    with client_of(recognizer, save=tmp_path) as client:
        assert client.post("/api/classes", json={"name": "kept", "like": "emu"}).json()["saved"]
        assert client.get("/api/about").json()["saves"]
    assert "kept" in ClassTable.from_csv(tmp_path / "classes.csv").names


def test_unknown_below_the_threshold(client, recognizer, png, monkeypatch):
    best = predicted(client, png)["classes"][0]["confidence"]
    monkeypatch.setattr(recognizer, "threshold", best + 1e-6, raising=False)
    assert predicted(client, png)["unknown"]
    assert explained(client, png)["unknown"]
    monkeypatch.setattr(recognizer, "threshold", best - 1e-6)
    assert not predicted(client, png)["unknown"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("post", "/api/rank", {"look": {"attribute_scores": [1], "rest": {}}}, 422, "1 attribute scores"),
        ("post", "/api/rank", {}, 422, "look: Field required"),
        ("post", "/api/rank", {"look": {"attribute_scores": [0] * 5, "rest": {}, "x": 1}}, 422, "look.x: Extra"),
        ("post", "/api/classes", {"name": "gull"}, 409, 'there is a class "gull" already'),
        ("post", "/api/classes", {"name": " "}, 422, "name: "),
        ("post", "/api/classes", {"name": "n"}, 422, "no attribute"),
        ("post", "/api/classes", {"name": "n", "like": "nobody"}, 404, 'no class "nobody"'),
        ("post", "/api/classes", {"name": "n", "values": {"tail": 1}}, 422, 'no attribute "tail"'),
        ("patch", "/api/classes/gull", {"name": "emu"}, 409, 'there is a class "emu" already'),
        ("patch", "/api/classes/nobody", {"name": "emu"}, 404, 'no class "nobody"'),
        ("delete", "/api/classes/nobody", None, 404, 'no class "nobody"'),
        ("get", "/api/classes/nobody", None, 404, 'no class "nobody"'),
        ("get", "/api/nothing", None, 404, "Not Found"),
        ("get", "/api/predict", None, 404, "Not Found"),
    ],
)
def test_errors_are_one_line_with_a_mend(client, method, path, body, status, said):
    answer = client.request(method, path, json=body)
    assert (answer.status_code in (status, 405)) if path == "/api/predict" else answer.status_code == status
    found = answer.json()
    assert set(found) == {"error", "mend"}
    if path != "/api/predict":
        assert said in found["error"]
    assert "\n" not in found["error"]
    assert found["mend"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"among": "new"}, "among: "),
        ({"top": "0"}, "top: "),
        ({"top": "many"}, "top: "),
        ({"only": ["x"]}, 'no class "x"'),
        ({"exclude": ["gull", "emu", "Fähre"], "among": "unseen"}, "no class is left"),
    ],
)
def test_wrong_choices(client, png, fields, said):
    answer = client.post("/api/predict", files={"pictures": ("a.png", png)}, data=fields)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_explain_of_wrong_classes(client, png):
    for fields, said in (
        ({"target": "x"}, 'no class "x"'),
        ({"target": "emu", "rival": "emu"}, "its own rival"),
        ({"target": "emu", "among": "seen"}, 'no class "emu"'),
    ):
        answer = client.post("/api/explain", files={"picture": ("a.png", png)}, data=fields)
        assert answer.status_code == 422
        assert said in answer.json()["error"]


def test_two_classes_stay(client):
    for name in ("Ada's finch", "emu", "Fähre", "gull"):
        assert client.delete(f"/api/classes/{name}").status_code == 200
    answer = client.delete("/api/classes/b/c")
    assert (answer.status_code, answer.json()["error"]) == (409, "only two classes are left")


def test_the_schema_describes_every_route(client):
    schema = client.get("/api/openapi.json").json()
    assert set(schema["paths"]) == {
        *("/healthz", "/api/about", "/api/predict", "/api/explain", "/api/rank"),
        *("/api/classes", "/api/classes/{name}"),
    }
    for path in schema["paths"].values():
        for operation in path.values():
            assert operation["description"]
            if operation.get("operationId", "").endswith("post"):
                assert operation["requestBody"]["content"]
    text = json.dumps(schema)
    assert "#/$defs/" not in text
    assert client.get("/docs").status_code == 404


def test_about_says_what_it_is(client, recognizer):
    about = client.get("/api/about").json()
    assert (about["model"], about["classes"], about["seen"], about["unseen"]) == ("tiny", 6, 3, 3)
    assert [a["name"] for a in about["attributes"]] == list(recognizer.table.attributes.names)
    assert about["attributes"][2]["label"] == "crown: red"
    assert about["attributes"][2]["mean"] == pytest.approx(recognizer.table.values[:, 2].mean())
    assert about["limits"]["upload_bytes"] == 20 * 2**20


def test_a_bug_is_no_traceback_to_the_client(client, recognizer, png, monkeypatch):
    monkeypatch.setattr(recognizer, "predict", lambda *a, **k: 1 / 0)
    answer = client.post("/api/predict", files={"pictures": ("a.png", png)})
    assert answer.status_code == 500
    assert answer.json()["error"] == "the server failed; its log says more"
    assert answer.headers["x-content-type-options"] == "nosniff"
