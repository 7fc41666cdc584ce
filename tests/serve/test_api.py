"""The API says what the recognizer says, and every error is one line with its hint."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from urllib.parse import quote

import numpy as np
import pytest
import torch

from serve_tools import client_of, encoded
from unseen.classes.changes import changing, keep_table, table_in_use
from unseen.classes.spreadsheets.columns import Column, Encoding
from unseen.recognizer.advice import separate


def explained(client, png, **fields):
    answer = client.post("/api/explain", files={"image": ("a.png", png)}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def predicted(client, png, **fields):
    answer = client.post("/api/predict", files={"images": ("a.png", png)}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"][0]


def ranked(client, look, **fields):
    answer = client.post("/api/rank", json={"look": look, "top": 9, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def same_classes_as(found, expected):
    assert [(c["name"], c["seen"]) for c in found] == [(c["name"], c["seen"]) for c in expected]
    assert [c["score"] for c in found] == [c["score"] for c in expected]  # to the bit
    assert [c["confidence"] for c in found] == pytest.approx([c["confidence"] for c in expected], abs=1e-12)


def test_predict_equals_the_recognizer(client, recognizer, png, image):
    expected = recognizer.predict([image], top=4, batch_size=1)[0].as_dict()
    found = predicted(client, png, top=4)
    assert found["classes"] == expected["classes"]
    assert found["attributes"] == expected["attributes"]
    assert (found["image"], found["unknown"], found["error"]) == ("a.png", False, None)


@pytest.mark.parametrize("among", ["seen", "unseen"])
def test_predict_among(client, recognizer, png, image, among):
    expected = [c.name for c in recognizer.predict([image], among=among)[0].candidates]
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


def test_many_images_keep_their_order_and_errors_their_place(client, png):
    files = [("images", ("a.png", png)), ("images", ("b.txt", b"text")), ("images", ("c.png", png[:-400]))]
    found = client.post("/api/predict", files=[*files, ("images", ("d.png", png))]).json()["predictions"]
    assert [p["image"] for p in found] == ["a.png", "b.txt", "c.png", "d.png"]
    assert [bool(p["error"]) for p in found] == [False, True, True, False]
    assert found[0]["classes"] == found[3]["classes"]


def test_explain_equals_the_recognizer(client, recognizer, png, image):
    why, look = recognizer.explain(image, target="gull", rival="b/c"), recognizer.look(image)
    found = explained(client, png, target="gull", rival="b/c")
    assert (found["target"]["name"], found["rival"]["name"]) == ("gull", "b/c")
    assert found["terms"] == [vars(t) for t in why.terms]
    assert found["crop"] == list(why.crop)
    assert (found["width"], found["height"]) == image.size
    assert [r["attribute"] for r in found["reasons"]] == [r.attribute for r in why.reasons]
    mean, estimates = recognizer.references.fit.mean, look.estimates()
    for got, reason in zip(found["reasons"], why.reasons, strict=True):
        for name in ("score", "typical", "evidence", "against", "value", "rival_value"):
            assert got[name] == getattr(reason, name)
        k = why.order[reason.attribute]
        assert got["evidence"] == pytest.approx((look.attribute_scores[k] - mean[k]) * reason.value)
        assert got["reading"] == (None if k == 4 else pytest.approx(estimates[k]))
        heat = why.heat(reason.attribute)
        np.testing.assert_allclose(np.array(got["heat"]) / 255, heat / heat.max(), atol=0.5 / 255 + 1e-9)
    same_classes_as(found["classes"], predicted(client, png)["classes"])
    score = found["target"]["score"]
    assert sum(r["evidence"] for r in found["reasons"]) + sum(t["evidence"] for t in found["terms"]) == pytest.approx(
        score, abs=1e-5
    )
    assert [(n["file"], n["name"], n["similarity"]) for n in found["nearest"]] == [
        (n.file, n.name, n.similarity) for n in why.nearest
    ]
    assert len(why.nearest) == 6


def test_explain_asks_the_network_once(client, recognizer, png, monkeypatch):
    asked = []
    network = recognizer.inputs
    monkeypatch.setattr(recognizer, "inputs", lambda pixels: asked.append(1) or network(pixels))
    explained(client, png)
    assert len(asked) == 1


def test_thumbnails_of_nearest_images_that_are_there(client, recognizer, png, image, tmp_path):
    images = tmp_path / "images"
    (images / "a class").mkdir(parents=True)
    recognizer.about["data"] = {"images": str(images)}
    first, second = (n["file"] for n in explained(client, png)["nearest"][:2])
    (images / first).write_bytes(png)
    (images / second).write_text("no image")
    (tmp_path / "else.png").write_bytes(png)
    near = {n["file"]: n["thumbnail"] for n in explained(client, png, thumbnails="1")["nearest"]}
    assert near.pop(first).startswith("data:image/jpeg;base64,/9j/")
    assert set(near.values()) == {None}
    assert all(n["thumbnail"] is None for n in explained(client, png)["nearest"])
    recognizer.references.files[:] = "../else.png"  # never from beside the folder
    assert all(n["thumbnail"] is None for n in explained(client, png, thumbnails="1")["nearest"])


def test_preview_is_a_small_upright_jpeg(client, png):
    assert explained(client, png)["preview"] is None
    assert explained(client, png, preview="1")["preview"].startswith("data:image/jpeg;base64,/9j/")


@pytest.mark.parametrize("fields", [{}, {"among": "unseen"}, {"only": ["emu", "b/c"]}, {"exclude": ["gull"]}])
def test_rank_without_corrections_is_the_prediction(client, png, fields):
    found = ranked(client, explained(client, png)["look"], **fields)
    same_classes_as(found["classes"], predicted(client, png, top=9, **fields)["classes"])


def test_rank_says_what_explain_said(client, png):
    why = explained(client, png, top=9)
    found = ranked(client, why["look"])
    for reason in why["reasons"]:
        del reason["heat"]
    assert found == {name: why[name] for name in found}


def test_a_correction_is_as_the_recognizer_means_it(client, recognizer, png, image):
    numbers, look = explained(client, png)["look"], recognizer.look(image)
    fit = recognizer.references.fit
    for corrections in ({"crown::red": 0.4}, {"crown::red": 0.0, "size::small": 0.3}):
        found = ranked(client, numbers, corrections=corrections)
        same_classes_as(found["classes"], [vars(c) for c in look.rank(corrections)])
        reasons = {r["attribute"]: r for r in found["reasons"]}
        value = corrections["crown::red"]
        assert reasons["crown::red"]["score"] == pytest.approx(fit.intercept[2] + fit.slope[2] * value)
        assert {name: reasons[name]["reading"] for name in corrections} == corrections
        assert reasons["bill::flat"]["score"] == look.attribute_scores[1]
    # one that was not learned goes between the quantiles of its scores
    share = (0.3 - fit.least[4]) / (fit.largest[4] - fit.least[4])
    assert reasons["size::small"]["score"] == pytest.approx(fit.low[4] + (fit.high[4] - fit.low[4]) * share)
    answer = client.post("/api/rank", json={"look": numbers, "corrections": {"crown::red": 7}})
    assert (answer.status_code, "7 is outside 0 to" in answer.json()["error"]) == (422, True)


def test_corrections_need_references(client, recognizer, png):
    assert client.get("/api/about").json()["no_corrections"] is None
    recognizer.references = None
    with client_of(recognizer) as fresh:
        assert "no attribute scores of its training images" in fresh.get("/api/about").json()["no_corrections"]
        found = explained(fresh, png)
        assert {r["reading"] for r in found["reasons"]} == {None}
        assert found["nearest"] == []
        assert {r["typical"] for r in found["reasons"]} == {0}
        assert ranked(fresh, found["look"])["classes"]
        answer = fresh.post("/api/rank", json={"look": found["look"], "corrections": {"crown::red": 0.1}})
        assert answer.status_code == 422
        assert "train again" in answer.json()["hint"]


def test_rank_follows_classes_that_come_and_go(client, png):
    look = explained(client, png)["look"]
    twin = client.post("/api/classes", json={"name": "twin", "like": "gull"}).json()
    assert twin["warnings"] == ['"twin" has the same attributes as "gull", so the model cannot separate them.']
    client.post("/api/classes", json={"name": "new", "values": {"crown::red": 0.9, "bill::flat": 0.3}})
    client.patch("/api/classes/emu", json={"name": "rhea", "values": {"crown::blue": 0.77}})
    client.delete("/api/classes/Fähre")
    found = ranked(client, look)["classes"]
    same_classes_as(found, predicted(client, png, top=9)["classes"])
    scores = {c["name"]: c["score"] for c in found}
    assert set(scores) == {"Ada's finch", "b/c", "<b>d</b>", "rhea", "gull", "twin", "new"}
    assert scores["twin"] == scores["gull"]


def test_a_model_that_compares_classes_as_a_whole(client, recognizer, png, monkeypatch):
    """Its query is not the attribute scores, so a look holds it."""
    weights = np.random.default_rng(5).standard_normal((7, 5)).astype(np.float32)
    method, fixed = recognizer.method, torch.from_numpy(weights)
    cls = type(method)
    scored = cls.query
    monkeypatch.setattr(cls, "query", lambda self, branches: scored(self, branches) @ fixed.T)
    monkeypatch.setattr(cls, "class_embeddings", lambda self, classes: classes.unit @ fixed.T)
    monkeypatch.setattr(cls, "by_attributes", property(lambda self: False))
    monkeypatch.setattr(recognizer, "_made", None)
    recognizer.table = recognizer.table  # forgets its class vectors
    with client_of(recognizer) as fresh:
        assert "does not score attributes" in fresh.get("/api/about").json()["no_corrections"]
        found = explained(fresh, png)
        assert len(found["look"]["query"]) == 7
        fresh.post("/api/classes", json={"name": "new", "values": {"crown::red": 0.9}})
        same_classes_as(ranked(fresh, found["look"])["classes"], predicted(fresh, png, top=9)["classes"])
        short = {**found["look"], "query": [1.0]}
        assert "1 query numbers" in fresh.post("/api/rank", json={"look": short}).json()["error"]
    monkeypatch.undo()
    recognizer._made = None


def test_separate_is_the_advice(client, recognizer):
    expected = separate(recognizer, "gull", "emu")
    found = client.get("/api/separate", params={"first": "gull", "second": "emu"}).json()
    assert found["today"] == [vars(d) for d in expected.today]
    assert found["refine"] == [vars(d) for d in expected.refine]
    assert found["cosine"] == expected.cosine
    assert client.get("/api/separate", params={"first": "gull", "second": "gull"}).status_code == 422
    assert client.get("/api/separate", params={"first": "gull"}).status_code == 422


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
        (good.replace("x,", "z,").replace("0.5", "half"), 'upload.csv, row 3: attribute "crown::blue": "half" is not'),
        (good, 'class "x" already exists'),
        (good.replace("size::small", "weight").replace("x,", "z,"), 'no attribute "weight"'),
        ("name,a\nz,1\n", 'no columns "attribute" and "value", and no column "class"'),
        ("attribute,value\ncrown::red,1\n", "has no class name"),
        ("class,a\n", "no rows below the header"),
        ("class\nz\n", "no attribute columns"),
        (good.replace("x,1", "z,1,1"), "row 2: 7 cells for 6 columns"),
        ("\xff".encode("latin-1"), "not UTF-8"),
    ):
        answer = client.post("/api/classes", content=bad, **send)
        assert answer.status_code in (409, 422)
        assert said in answer.json()["error"]
    assert len(client.get("/api/classes").json()["classes"]) == 8


def test_classes_from_a_workbook(client, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (("class", "crown::red", "crown::blue"), ("x", 0.25, 1)):
        book.active.append(row)
    book.save(tmp_path / "new.xlsx")
    data = (tmp_path / "new.xlsx").read_bytes()
    kind = {"Content-Type": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}
    (added,) = client.post("/api/classes", content=data, headers=kind).json()["classes"]
    assert added["values"]["crown::red"] == 0.25
    assert added["values"]["bill::flat"] == pytest.approx(0.3933333333)  # unknown: the mean of the seen classes
    assert "cannot read the workbook" in client.post("/api/classes", content=b"PK", headers=kind).json()["error"]
    bomb = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(30_000_000))
    answer = client.post("/api/classes", content=bomb.read_bytes(), headers=kind)
    assert (answer.status_code, answer.json()["error"]) == (413, "the workbook unpacks to 30 MB")


def test_words_where_the_classes_came_from_a_spreadsheet(client, recognizer):
    columns = (
        Column("bill", "categories", ("hooked", "flat")),
        Column("crown", "categories", ("red",)),
        Column("small", "yes/no", both=True),
    )
    recognizer.encoding = Encoding(columns)
    about = client.get("/api/about").json()
    assert list(about["template"]) == ["bill", "crown", "small"]
    table = "class,bill,crown,small\nx,hooked; flat,red,yes\ny,flat,red,no\n"
    send = {"headers": {"Content-Type": "text/csv"}}
    found = client.post("/api/classes", content=table, **send).json()["classes"]
    for entry, row in zip(found, table.splitlines()[1:], strict=True):
        expected = recognizer.encoding.encode(dict(zip(about["template"], row.split(",")[1:], strict=True)))
        assert list(entry["values"].values()) == list(expected)
    assert list(found[0]["values"].values()) == [1, 1, 1, 0, 1]
    answer = client.post("/api/classes", content=table.replace("flat", "fat").replace("x,", "z,"), **send)
    assert answer.status_code == 422
    assert 'upload.csv, row 2, column "bill"' in answer.json()["error"]
    assert "z" not in recognizer.table.names


def test_changes_are_kept_if_asked(recognizer, tmp_path):
    folder = recognizer.save(tmp_path / "model")
    trained = (folder / "classes.csv").read_bytes()
    with client_of(recognizer, save=folder) as client:
        assert client.post("/api/classes", json={"name": "kept", "like": "emu"}).json()["saved"]
        assert client.get("/api/about").json()["saves"]
        with changing(folder) as table:  # as `unseen classes` does from another process
            keep_table(folder, table.without("gull"))
        assert client.delete("/api/classes/b/c").status_code == 200
        assert client.post("/api/classes", json={"name": "kept", "like": "emu"}).status_code == 409
        (back,) = client.post("/api/classes", json={"name": "b/c", "like": "emu"}).json()["classes"]
        assert back["seen"]  # it was trained with images
    expected = ["Ada's finch", "<b>d</b>", "emu", "Fähre", "kept", "b/c"]
    assert list(table_in_use(folder).names) == list(recognizer.table.names) == expected
    assert (folder / "classes.csv").read_bytes() == trained


def test_classes_changed_in_a_terminal_are_taken_over(recognizer, png, tmp_path):
    """At once and in every answer, but not over unsaved changes of the page, which do not overwrite the folder."""
    folder = recognizer.save(tmp_path / "model")

    def names(client):
        return [c["name"] for c in client.get("/api/classes").json()["classes"]]

    def outside(change):
        with changing(folder) as table:  # as `unseen classes` does from another process
            keep_table(folder, change(table))

    with client_of(recognizer, watch=folder, folder=folder) as client:
        outside(lambda table: table.with_class("wren", table.values[0] + 0.01, seen=False))
        sent = {"files": {"images": ("a.png", png)}, "data": {"top": "9"}}
        (found,) = client.post("/api/predict", **sent).json()["predictions"]
        assert "wren" in [c["name"] for c in found["classes"]]
        entry = client.get("/api/classes").json()["classes"][-1]
        assert (entry["name"], entry["change"]) == ("wren", "added")
        (folder / "classes-in-use.csv").write_text("class,seen,other\na,1,1\n")  # of another model: kept as they were
        assert names(client)[-1] == "wren"
        (folder / "classes-in-use.csv").unlink()  # `unseen classes reset`
        assert "wren" not in names(client)
        assert client.post("/api/classes", json={"name": "mine", "like": "emu"}).status_code == 201
        assert "outdated" not in client.get("/api/classes").json()
        outside(lambda table: table.without("gull"))
        answer = client.get("/api/classes").json()
        assert {"mine", "gull"} <= {c["name"] for c in answer["classes"]}
        assert "restart `unseen serve`" in answer["outdated"]
        refused = client.post("/api/classes/save")
        assert (refused.status_code, refused.json()["hint"]) == (409, answer["outdated"])
        assert "gull" not in table_in_use(folder).names
    recognizer.table = table_in_use(folder)
    with client_of(recognizer, watch=folder, folder=folder) as client:
        client.post("/api/classes", json={"name": "mine", "like": "emu"})
        assert client.post("/api/classes/save").status_code == 200
        outside(lambda table: table.renamed("emu", "rhea"))
        assert {"mine", "rhea"} <= set(names(client))


def test_null_is_unknown_and_nearest_classes_are_named(client, recognizer):
    unknown = recognizer.table.unknown
    changed = client.post("/api/classes", json={"name": "n", "like": "gull", "values": {"crown::red": None}}).json()
    gull = recognizer.table.values[recognizer.table.index("gull")]
    mine = recognizer.table.values[recognizer.table.index("n")]
    assert mine.tolist() == [gull[0], gull[1], unknown[2], gull[3], gull[4]]
    from unseen.recognizer.advice import closest

    assert changed["nearest"] == {"n": [near.name for near in closest(recognizer, "n", 3)]}
    client.patch("/api/classes/n", json={"values": {"bill::flat": None, "crown::red": 0.5}})
    mine = recognizer.table.values[recognizer.table.index("n")]
    assert mine.tolist() == pytest.approx([gull[0], unknown[1], 0.5, gull[3], gull[4]], abs=0.05)
    assert client.patch("/api/classes/n", json={"values": {"tail": None}}).status_code == 422


def test_ranges_of_values(client, recognizer):
    def ranges(values):
        recognizer.table = replace(recognizer.table, values=np.asarray(values, float))
        return [(a["least"], a["most"]) for a in client.get("/api/about").json()["attributes"]]

    shares = np.random.default_rng(0).random((6, 5))
    assert set(ranges(shares)) == {(0.0, 1.0)}
    assert set(ranges(6.25 * shares)) == {(0.0, 100.0)}
    grams = shares * [1, 1, 1, 1, 2000]
    assert ranges(grams) == [(0.0, m) for m in grams.max(axis=0)]


def test_classes_are_saved_once_if_the_folder_is_known(recognizer, tmp_path):
    recognizer.save(tmp_path / "m")
    with client_of(recognizer, folder=tmp_path / "m") as client:
        about = client.get("/api/about").json()
        assert (about["can_save"], about["saves"]) == (True, False)
        client.post("/api/classes", json={"name": "new", "values": {"crown::red": 0.9}})
        assert not (tmp_path / "m/classes-in-use.csv").exists()
        assert client.post("/api/classes/save").json() == {"folder": str(tmp_path / "m")}
        assert "new" in (tmp_path / "m/classes-in-use.csv").read_text()
    with client_of(recognizer) as client:
        assert client.post("/api/classes/save").status_code == 403


def test_examples_are_training_images_of_different_classes(recognizer, image, tmp_path):
    (tmp_path / "a class").mkdir()
    for i in range(30):
        image.save(tmp_path / f"a class/{i}.png")
    recognizer.about["data"] = {"images": str(tmp_path)}
    with client_of(recognizer) as client:
        names = client.get("/api/examples").json()["examples"]
        assert sorted(names) == sorted(recognizer.table.names[:3])
        found = client.get("/api/examples/0?small=1")
        assert found.headers["content-type"] == "image/jpeg"
        assert client.get("/api/examples/3").status_code == 404
        small = {c["name"]: c.get("thumbnail") for c in client.get("/api/classes").json()["classes"]}
        assert small == dict.fromkeys(recognizer.table.names) | {
            n: f"/api/examples/{i}?small=1" for i, n in enumerate(names)
        }
        first = names[0]
        assert client.patch(f"/api/classes/{quote(first, safe='')}", json={"name": "A new name"}).status_code == 200
        assert client.get("/api/examples").json()["examples"] == ["A new name", *names[1:]]
        table = {c["name"]: c for c in client.get("/api/classes").json()["classes"]}
        assert table["A new name"]["thumbnail"] == "/api/examples/0?small=1"
        near = [n["name"] for n in explained(client, encoded(image))["nearest"]]
        assert first not in near
        assert set(near) <= {"A new name", *names[1:]}
        client.post("/api/classes", json={"name": first, "values": {"crown::red": 1}})  # another class of the old name
        table = {c["name"]: c.get("thumbnail") for c in client.get("/api/classes").json()["classes"]}
        assert (table[first], table["A new name"]) == (None, "/api/examples/0?small=1")
        client.patch("/api/class-images/gull", files={"images": ("a.png", encoded(image))})
        (gull,) = [c for c in client.get("/api/classes").json()["classes"] if c["name"] == "gull"]
        assert client.get(gull["thumbnail"]).headers["content-type"] == "image/jpeg"
    recognizer.about.pop("data")
    with client_of(recognizer) as client:
        assert client.get("/api/examples").json() == {"examples": []}


def test_a_table_becomes_a_workbook(client):
    import io

    openpyxl = pytest.importorskip("openpyxl")
    found = client.post("/api/workbook", json={"columns": ["image", "class"], "rows": [["=1.jpg", None], ["b", "x"]]})
    rows = list(openpyxl.load_workbook(io.BytesIO(found.content)).active.iter_rows(values_only=True))
    assert rows == [("image", "class"), ("=1.jpg", None), ("b", "x")]
    wrong = client.post("/api/workbook", json={"columns": ["image"], "rows": [["a", "b"]]})
    assert wrong.status_code == 422


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
        ("post", "/api/rank", {"look": {"attribute_scores": [1]}}, 422, "1 attribute scores"),
        ("post", "/api/rank", {}, 422, "look: Field required"),
        ("post", "/api/rank", {"look": {"attribute_scores": [0] * 5, "x": 1}}, 422, "look.x: Extra"),
        ("post", "/api/classes", {"name": "gull"}, 409, 'class "gull" already exists'),
        ("post", "/api/classes", {"name": " "}, 422, "name: "),
        ("post", "/api/classes", {"name": "n"}, 422, "no attribute"),
        ("post", "/api/classes", {"name": "n", "like": "nobody"}, 404, 'no class "nobody"'),
        ("post", "/api/classes", {"name": "n", "values": {"tail": 1}}, 422, 'no attribute "tail"'),
        ("patch", "/api/classes/gull", {"name": "emu"}, 409, 'class "emu" already exists'),
        ("patch", "/api/classes/nobody", {"name": "emu"}, 404, 'no class "nobody"'),
        ("delete", "/api/classes/nobody", None, 404, 'no class "nobody"'),
        ("get", "/api/classes/nobody", None, 404, 'no class "nobody"'),
        ("get", "/api/nothing", None, 404, "Not Found"),
        ("get", "/api/predict", None, 404, "Not Found"),
    ],
)
def test_errors_are_one_line_with_a_hint(client, method, path, body, status, said):
    answer = client.request(method, path, json=body)
    assert (answer.status_code in (status, 405)) if path == "/api/predict" else answer.status_code == status
    found = answer.json()
    assert set(found) == {"error", "hint"}
    if path != "/api/predict":
        assert said in found["error"]
    assert "\n" not in found["error"]
    assert found["hint"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"among": "new"}, "among: "),
        ({"top": "0"}, "top: "),
        ({"top": "many"}, "top: "),
        ({"only": ["x"]}, 'no class "x"'),
        ({"exclude": ["gull", "emu", "Fähre"], "among": "unseen"}, "no candidate class remains"),
    ],
)
def test_wrong_choices(client, png, fields, said):
    answer = client.post("/api/predict", files={"images": ("a.png", png)}, data=fields)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_explain_of_wrong_classes(client, png):
    for fields, said in (
        ({"target": "x"}, 'no class "x"'),
        ({"target": "emu", "rival": "emu"}, "cannot be compared with itself"),
        ({"target": "emu", "among": "seen"}, '"emu" is not a candidate class'),
        ({"only": "emu"}, '"emu" is the only candidate class'),
    ):
        answer = client.post("/api/explain", files={"image": ("a.png", png)}, data=fields)
        assert answer.status_code == 422
        assert said in answer.json()["error"]


def test_two_classes_stay(client):
    for name in ("Ada's finch", "emu", "Fähre", "gull"):
        assert client.delete(f"/api/classes/{name}").status_code == 200
    answer = client.delete("/api/classes/b/c")
    assert (answer.status_code, answer.json()["error"]) == (409, "at least two classes must remain")


def test_the_schema_describes_every_route(client):
    schema = client.get("/api/openapi.json").json()
    assert set(schema["paths"]) == {
        *("/healthz", "/api/about", "/api/predict", "/api/explain", "/api/rank", "/api/separate"),
        *("/api/classes", "/api/classes/{name}", "/api/classes/save"),
        *("/api/class-images/{name}", "/api/thumbnails/{digest}"),
        *("/api/examples", "/api/examples/{number}", "/api/workbook"),
    }
    for name, path in schema["paths"].items():
        for operation in path.values():
            assert operation["description"]
            if operation.get("operationId", "").endswith("post") and name != "/api/classes/save":
                assert operation["requestBody"]["content"]
    text = json.dumps(schema)
    assert "#/$defs/" not in text
    assert client.get("/docs").status_code == 404


def test_about_says_what_it_is(client, recognizer):
    about = client.get("/api/about").json()
    assert (about["model"], about["classes"], about["seen"], about["unseen"]) == ("tiny", 6, 3, 3)
    assert [a["name"] for a in about["attributes"]] == list(recognizer.table.attributes.names)
    assert about["attributes"][2]["label"] == "crown: red"
    assert about["attributes"][2]["mean"] == pytest.approx(recognizer.table.unknown[2])
    assert about["limits"]["upload_bytes"] == 20 * 2**20


def test_a_bug_is_no_traceback_to_the_client(client, recognizer, png, monkeypatch):
    monkeypatch.setattr(recognizer, "predict", lambda *a, **k: 1 / 0)
    answer = client.post("/api/predict", files={"images": ("a.png", png)})
    assert answer.status_code == 500
    assert answer.json()["error"] == "the server failed; see its log"
    assert answer.headers["x-content-type-options"] == "nosniff"
