"""The review's API: images, verdicts on disk, reasons, exports."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from review_tools import draw_images, model
from unseen.review import Review, Verdict
from unseen.review.begin import begin


@pytest.fixture(scope="module")
def recognizer(tiny_backbone):
    return model(tiny_backbone)


@pytest.fixture
def client(recognizer, tmp_path):
    from fastapi.testclient import TestClient

    from unseen.serve.reviewing import create_review_app

    (tmp_path / "images").mkdir()
    images = draw_images(tmp_path / "images", 4)
    images[3].write_bytes(b"no image")
    app = create_review_app(recognizer, begin(recognizer, images, tmp_path / "r"))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as found:
        yield found


def send(client, *verdicts):
    return client.post("/api/review/verdicts", json={"verdicts": list(verdicts)})


def test_verdicts_are_on_disk_and_measured(client, tmp_path):
    found = client.get("/api/review").json()
    assert [item["row"] for item in found["items"]] == [0, 1, 2, 3]
    assert sorted(item["place"] for item in found["items"]) == [0, 1, 2, 3]
    answer = found["items"][0]["classes"][0][0]
    done = send(client, {"rows": [0, 1, 2], "class": answer}, {"rows": [1], "class": None}, {"rows": [2], "undo": True})
    assert done.json()["reviewed"]["reviewed"] == 2
    assert sorted(client.get("/api/review").json()["verdicts"]) == [[0, answer], [1, None]]
    client.__exit__(None, None, None)
    with Review(tmp_path / "r") as review:
        assert review.verdicts == {0: Verdict(answer), 1: Verdict(None)}
    client.__enter__()


def test_images_come_small_and_upright(client):
    found = client.get("/thumb/0")
    assert found.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(found.content)).size == (70, 64)
    assert "max-age" in found.headers["cache-control"]
    assert client.get("/image/3").status_code == 404
    assert client.get("/thumb/4").status_code == 404
    assert client.get("/thumb/-1").status_code == 422


def test_reasons_are_the_strongest_with_heat_maps(client, recognizer, tmp_path):
    found = client.get("/api/review/0/reasons").json()
    evidence = [abs(r["evidence"]) for r in found["reasons"]]
    assert evidence == sorted(evidence, reverse=True)
    assert {r["label"] for r in found["reasons"]} == {"bill: long", "crown: black", "size: small"}
    left, top, right, bottom = found["crop"]
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    assert client.get("/api/review/3/reasons").status_code == 415


def test_reasons_are_those_of_the_answer_also_among_some_classes(recognizer, tmp_path):
    from fastapi.testclient import TestClient

    from unseen.recognizer.stream import Options
    from unseen.serve.reviewing import create_review_app

    (tmp_path / "images").mkdir()
    (image,) = draw_images(tmp_path / "images", 1)
    names = [c.name for c in recognizer.predict(image, top=5)[0].candidates]
    only = names[1:]  # without the best class
    review = begin(recognizer, [image], tmp_path / "r", Options(only=only))
    with TestClient(create_review_app(recognizer, review), base_url="http://localhost") as client:
        found = client.get("/api/review/0/reasons").json()["reasons"]
    wanted = {r.attribute.replace("::", ": "): r.evidence for r in recognizer.explain(image, target=only[0]).reasons}
    assert {r["label"]: r["evidence"] for r in found} == pytest.approx(wanted, abs=1e-6)
    best = recognizer.explain(image).reasons
    assert [wanted[r.attribute.replace("::", ": ")] for r in best] != pytest.approx(
        [r.evidence for r in best], abs=1e-3
    )


def test_exports(client, tmp_path):
    found = client.get("/api/review/export.csv")
    assert found.text.splitlines()[0].startswith("image,class,reviewed,right")
    assert len(found.text.splitlines()) == 5
    assert client.get("/api/review/export.xlsx").content[:2] == b"PK"
    assert client.get("/api/review/export.exe").status_code == 404
    first, second = (client.post("/api/review/folders", json={}).json()["folder"] for _ in range(2))
    assert (first, second) == (str(tmp_path / "r/classes"), str(tmp_path / "r/classes-2"))
    assert len(list((tmp_path / "r/classes").rglob("*.jpg"))) == 3


@pytest.mark.parametrize(
    ("verdict", "line"),
    [
        ({"rows": [0], "class": "Roc"}, 'no class "Roc"'),
        ({"rows": [9], "class": "Rook"}, "no image 9"),
        ({"rows": ["a"], "class": "Rook"}, "rows"),
        ({"rows": [0], "name": "Rook"}, "name"),
    ],
)
def test_wrong_verdicts_are_refused(client, verdict, line):
    found = send(client, verdict)
    assert found.status_code == 422
    assert line in found.json()["error"]
    assert client.get("/api/review").json()["verdicts"] == []


def test_other_sites_may_not_decide(client):
    headers = {"Origin": "http://elsewhere.example"}
    found = client.post("/api/review/verdicts", json={"verdicts": []}, headers=headers)
    assert found.status_code == 403
