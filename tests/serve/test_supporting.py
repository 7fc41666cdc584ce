"""Support images over HTTP: as the recognizer takes them, within the limits, listed, removed and saved."""

from __future__ import annotations

import hashlib
import io

import pytest
from PIL import Image

from serve_tools import client_of, drawn, encoded
from unseen.model.support import read_support

PNGS = [encoded(drawn(i)) for i in range(4)]


def give(client, name, *images, method="PATCH"):
    files = [("images", one if isinstance(one, tuple) else (f"{i}.png", one)) for i, one in enumerate(images)]
    return client.request(method, f"/api/class-images/{name}", files=files)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def top(client, data):
    return client.post("/api/predict", files={"images": ("x.png", data)}, data={"top": 9}).json()["predictions"][0]


def test_images_count_as_in_the_recognizer(client, recognizer, tmp_path):
    before = {c["name"]: c["score"] for c in top(client, PNGS[0])["classes"]}
    found = give(client, "gull", *PNGS[:3]).json()
    assert found["added"] == [digest(data) for data in PNGS[:3]]
    (entry,) = found["classes"]
    assert (entry["images"], entry["image_weight"]) == (3, 0.75)  # n / (n + k), k = 1
    after = {c["name"]: c["score"] for c in top(client, PNGS[0])["classes"]}
    assert {name for name in after if after[name] != before[name]} == {"gull"}
    over_http = recognizer.support
    for i, data in enumerate(PNGS[:3]):
        (tmp_path / f"{i}.png").write_bytes(data)
    recognizer.support = recognizer.support.without("gull")
    recognizer.add_images("gull", sorted(tmp_path.iterdir()))
    alone = {c.name: c.score for c in recognizer.predict([drawn(0)], top=9, batch_size=1)[0].candidates}
    assert alone["gull"] == pytest.approx(after["gull"], abs=1e-6)
    assert [i.sha256 for i in recognizer.support["gull"].images] == [i.sha256 for i in over_http["gull"].images]


def test_a_look_from_before_is_ranked_with_them(client):
    look = client.post("/api/explain", files={"image": ("x.png", PNGS[0])}).json()["look"]
    give(client, "gull", PNGS[0])
    ranked = client.post("/api/rank", json={"look": look, "top": 9, "target": "gull"}).json()
    assert {c["name"]: c["score"] for c in ranked["classes"]} == {
        c["name"]: c["score"] for c in top(client, PNGS[0])["classes"]
    }
    assert "its own images" in [term["name"] for term in ranked["terms"]]


def test_what_cannot_be_read_is_left_out_and_named(client, recognizer):
    give(client, "b%2Fc", PNGS[0])
    found = give(client, "gull", PNGS[0], ("again.png", PNGS[0]), ("x.pdf", b"%PDF"), ("cut.png", PNGS[1][:200])).json()
    assert found["added"] == [digest(PNGS[0])]
    assert found["known"] == ["again.png"]
    assert [f["error"].split(":")[0] for f in found["failed"]] == ["x.pdf", "cut.png"]
    assert found["warnings"] == ['0.png is also an image of "b/c"']
    answer = give(client, "emu", ("x.pdf", b"%PDF"))
    assert (answer.status_code, answer.json()["error"]) == (422, "x.pdf: not an image")
    assert "emu" not in recognizer.support.classes


def test_a_class_of_images_alone(client, recognizer):
    answer = give(client, "spoonbill", *PNGS[:2], method="PUT")
    assert answer.status_code == 201
    (entry,) = answer.json()["classes"]
    assert (entry["images"], entry["image_weight"], entry["seen"], entry["change"]) == (2, 1.0, False, "added")
    assert "expectation" not in entry
    assert not recognizer.support["spoonbill"].attributes
    assert give(client, "spoonbill", PNGS[3], method="PUT").status_code == 409
    assert give(client, "a%E2%80%A8b", PNGS[3], method="PUT").status_code == 422
    answer = client.delete("/api/class-images/spoonbill")
    assert "no attributes, and would have no image left" in answer.json()["error"]
    changed = client.patch("/api/classes/spoonbill", json={"values": {"crown::red": 0.9}}).json()["classes"][0]
    assert 0 < changed["image_weight"] < 1
    assert client.delete("/api/class-images/spoonbill").json()["classes"][0].get("images") is None


def test_images_are_listed_with_thumbnails_and_removed(client, recognizer, tmp_path):
    (tmp_path / "there.png").write_bytes(PNGS[2])
    (tmp_path / "gone.png").write_bytes(PNGS[3])
    recognizer.add_images("gull", sorted(tmp_path.iterdir()))
    (tmp_path / "gone.png").unlink()
    give(client, "gull", ("folder/sent.png", PNGS[0]))
    found = client.get("/api/class-images/gull").json()["images"]
    assert [(i["image"], i["thumbnail"]) for i in found] == [
        ("gone.png", False),
        ("there.png", True),
        ("sent.png", True),
    ]
    for one in found[1:]:
        small = client.get(f"/api/thumbnails/{one['sha256']}")
        assert Image.open(io.BytesIO(small.content)).size == (100, 80)
    (tmp_path / "there.png").write_bytes(PNGS[1])  # another image by now
    for wrong in (found[0]["sha256"], found[1]["sha256"], "0" * 64, "x"):
        assert client.get(f"/api/thumbnails/{wrong}").status_code == 404
    assert client.delete(f"/api/class-images/gull?image={'0' * 64}").status_code == 404
    left = client.delete("/api/class-images/gull", params={"image": [found[0]["sha256"], found[2]["sha256"]]}).json()
    assert left["classes"][0]["images"] == 1
    assert client.get(f"/api/thumbnails/{found[2]['sha256']}").status_code == 404
    assert "images" not in client.delete("/api/class-images/gull").json()["classes"][0]
    assert client.delete("/api/class-images/gull").status_code == 404
    for path in ("nobody", "nobody%2Fgull"):
        assert client.get(f"/api/class-images/{path}").status_code == 404
        assert give(client, path, PNGS[0]).status_code == 404


def test_limits_and_guards(recognizer):
    with client_of(recognizer, max_images=2, max_pixels=9000, support_images=2) as client:
        assert give(client, "gull", *PNGS[:3]).status_code == 413
        assert "pixels" in give(client, "gull", encoded(drawn(1, (200, 100)))).json()["error"]
        assert give(client, "gull", *PNGS[:2]).status_code == 200
        answer = give(client, "emu", PNGS[0])
        assert (answer.status_code, answer.json()["hint"]) == (409, "remove some first")
        assert give(client, "new", PNGS[0], method="PUT").status_code == 409
        assert "new" not in recognizer.table.names
        assert client.patch("/api/class-images/gull", json={}).status_code == 415
        foreign = {"Origin": "http://elsewhere.example"}
        assert client.delete("/api/class-images/gull", headers=foreign).status_code == 403
        assert client.post("/api/class-images/gull", files={"images": ("a.png", PNGS[3])}).status_code == 405


def test_a_model_without_a_rule_says_so(recognizer, monkeypatch):
    monkeypatch.setattr(recognizer, "_space", None)
    with client_of(recognizer) as client:
        assert "no rule for support images" in client.get("/api/about").json()["no_images"]
        assert "no rule for support images" in give(client, "gull", PNGS[0]).json()["error"]


def test_they_are_saved_with_the_classes(recognizer, tmp_path):
    folder = recognizer.save(tmp_path / "m")
    with client_of(recognizer, folder=folder) as client:
        assert not give(client, "gull", PNGS[0]).json()["saved"]
        assert not read_support(folder)
        client.post("/api/classes/save")
        assert [i.file for i in read_support(folder)["gull"].images] == ["0.png"]
    with client_of(recognizer, save=folder) as client:
        assert give(client, "gull", PNGS[1]).json()["saved"]
        give(client, "spoonbill", PNGS[2], method="PUT")
        kept = read_support(folder)
        assert (len(kept["gull"].images), kept["spoonbill"].attributes) == (2, False)
        client.delete("/api/class-images/gull")
        assert "gull" not in read_support(folder).classes
