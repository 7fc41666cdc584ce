"""``unseen predict`` as a person uses it."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from unseen import cli
from unseen.backbones.backbone import Backbone
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.methods import create_method
from unseen.recognizer import Recognizer


@pytest.fixture(scope="module")
def model(tiny_backbone, tmp_path_factory):
    """A saved recognizer of 5 classes, whose threshold nothing reaches."""
    backbone, rng = Backbone(tiny_backbone), np.random.default_rng(0)
    table = ClassTable(
        ("Rook", "Crow, hooded", "Jackdaw", "Raven", "Jay"),
        Attributes(("bill::long", "crown::black", "size::small")),
        rng.random((5, 3)) + 0.1,
        np.array([1, 1, 0, 0, 1], bool),
    )
    method = create_method("global", channels=backbone.channels[0], vectors=torch.randn(3, 8))
    with torch.no_grad():
        method.weight.copy_(torch.randn(method.weight.shape, generator=torch.Generator().manual_seed(2)))
    made = Recognizer(backbone, method, table, temperature=2.0, threshold=0.999, device="cpu")
    return made.save(tmp_path_factory.mktemp("model") / "saved")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(1)
    for i in range(9):
        Image.fromarray(rng.integers(0, 255, (8, 9, 3), dtype=np.uint8)).resize((70, 64)).save(folder / f"{i}.jpg")
    return folder


@pytest.fixture
def predict(monkeypatch, capsys, model):
    """Run the command; gives status, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["unseen", "predict", str(model), "--device", "cpu", *map(str, arguments)])
        monkeypatch.setattr(cli.out, "_width", 200)
        status = 0
        try:
            cli.main()
        except SystemExit as leave:
            status = leave.code or 0
        return status, *capsys.readouterr()

    return run


def test_the_table_says_unknown(predict, images):
    status, out, err = predict(images / "1.jpg", "--top", "2")
    assert (status, err) == (0, "")
    assert "unknown; nearest: " in out
    status, out, _ = predict(images / "1.jpg", "--unknown", "off")
    assert "unknown" not in out
    _, text, _ = predict(images / "1.jpg", "--unknown", "0", "--json")
    assert json.loads(text)["items"][0]["known"] is True


def test_an_explanation_says_unknown_like_the_prediction(monkeypatch, capsys, model, images, tmp_path):
    arguments = ["explain", str(model), str(images / "1.jpg"), "-o", str(tmp_path / "why.svg"), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["unseen", *arguments])
    with suppress(SystemExit):
        cli.main()
    assert "answer:  unknown: no class reaches 100% confidence" in capsys.readouterr().out
    assert "answer: unknown" in (tmp_path / "why.svg").read_text()


def test_class_lists(predict, images, tmp_path):
    def classes(*arguments):
        status, out, err = predict(images / "1.jpg", "--json", "--top", "9", *arguments)
        assert status == 0, err
        (found,) = json.loads(out)["items"]
        assert sum(c["confidence"] for c in found["classes"]) == pytest.approx(1)
        return {c["name"] for c in found["classes"]}

    (tmp_path / "here.txt").write_text("Rook\nCrow, hooded\n")
    assert classes("--only", "Rook,Jay", "--only", "Crow, hooded") == {"Rook", "Jay", "Crow, hooded"}
    assert classes("--only", f"@{tmp_path / 'here.txt'}") == {"Rook", "Crow, hooded"}
    assert classes("--exclude", tmp_path / "here.txt", "--among", "unseen") == {"Jackdaw", "Raven"}
    _, _, err = predict(images / "1.jpg", "--only", "Rook,Jay")
    assert "note: confidence is relative to the candidate classes" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{images}", "--only", "Rok"], 'no class "Rok" — did you mean Rook?'),
        (["{images}", "--only", "Rook", "--exclude", "Rook"], "no candidate class remains"),
        (["{images}", "--only", "@none.txt"], "none.txt: No such file"),
        (["{images}", "--unknown", "much"], '"much" is not a threshold — use auto, off, or a confidence from 0 to 1'),
        (["{images}", "--unknown", "1.5"], '"1.5" is not a threshold'),
        (["{images}", "-o", "x.txt"], "x.txt: unsupported file format for predictions"),
        ([], "no images"),
        (["none/*.jpg"], "none/*.jpg: no file matches this pattern"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(predict, images, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    arguments = [a.replace("{images}", str(images)) for a in arguments]
    for more in ([], ["-o", "found.csv"]) if "-o" not in arguments else ([],):
        status, out, err = predict(*arguments, *more)
        assert (status, out) == (2, "")
        assert err.startswith("error: ")
        assert words in err
        assert err.count("\n") == 1
        assert not list(tmp_path.iterdir())


def test_many_images_need_a_file(predict, images, tmp_path):
    (tmp_path / "list.txt").write_text(f"{images / '1.jpg'}\n" * 1001)
    status, _, err = predict("--list", tmp_path / "list.txt")
    assert (status, "more than 1000 images — pass --output FILE.csv" in err) == (2, True)


def test_what_is_no_image_is_named(predict, images, tmp_path):
    (tmp_path / "linked").symlink_to(images)
    for name in ("a.cr2", "b.txt", "c.txt"):
        (tmp_path / name).write_text("no image")
    Image.fromarray(np.arange(70 * 64, dtype=np.uint16).reshape(64, 70) >> 1).save(tmp_path / "grey.png")
    status, out, err = predict(tmp_path)
    assert status == 0
    assert "9.jpg" not in out
    assert all(f"{i}.jpg" in out for i in range(9))
    assert err.splitlines() == [
        "note: 16-bit greys that use 12 bits are scaled to 8 bits",
        f"note: 1 file ignored, .cr2, a camera raw file: export it as JPEG or PNG: {tmp_path}/a.cr2",
        f"note: 2 files ignored, .txt, not an image format: {tmp_path}/b.txt, {tmp_path}/c.txt",
    ]


def test_a_file_with_a_row_for_a_broken_image(predict, images, tmp_path):
    (tmp_path / "list.csv").write_text("image\nno image.jpg\n")
    (tmp_path / "text.jpg").write_text("text")
    Image.open(images / "0.jpg").save(tmp_path / "png.jpg", format="PNG")  # its ending is wrong, its content is not
    path = tmp_path / "found.csv"
    arguments = [tmp_path / "text.jpg", tmp_path / "png.jpg", images, "--list", tmp_path / "list.csv", "-o", path]
    status, out, err = predict(*arguments)
    assert status == 1
    assert out == f"{path}: 12 images, 10 of them unknown\n"
    assert f"error: {tmp_path / 'text.jpg'}: Pillow cannot read this image" in err
    assert '2 of 12 images could not be read; see the column "error"' in err
    rows = list(csv.DictReader(path.open()))
    assert [r["error"][:15] for r in rows] == ["Pillow cannot r", *[""] * 10, "no such image"]
    assert {r["class"] for r in rows} == {"", "unknown"}
    status, _, err = predict(*arguments)
    assert (status, "already exists" in err) == (2, True)
    status, out, _ = predict(*arguments, "--restart", "--json")
    assert json.loads(out) == {
        "json_version": 1,
        "output": str(path),
        "images": 12,
        "broken": 2,
        "unknown": 10,
        "coarser": 0,
    }
    assert list(csv.DictReader(path.open())) == rows


def test_killed_at_any_moment_and_repeated(unseen, commands, model, images, tmp_path, monkeypatch):
    """The real command, killed without warning, with paths on standard input."""
    paths = "".join(f"{images / f'{i % 9}.jpg'}\n" for i in range(150))
    argv = ["predict", str(model), "-", "--device", "cpu", "--batch-size", "7", "-o"]
    journal = tmp_path / "killed.jsonl.partial" / "journal.jsonl"
    started = commands.start(tmp_path, *argv, tmp_path / "killed.jsonl", given=paths.encode())
    started.until(lambda: journal.exists() and journal.stat().st_size > 5000)
    started.kill()
    assert not (tmp_path / "killed.jsonl").exists()
    assert journal.read_bytes().count(b"\n") > 7
    for name in ("killed.jsonl", "whole.jsonl"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(paths.encode())))
        status, _, err = unseen(*argv, tmp_path / name)
        assert status == 0, err
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len((tmp_path / "whole.jsonl").read_text().splitlines()) == 150
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.jsonl", "whole.jsonl"]


def test_shards_and_their_merge(predict, images, tmp_path, monkeypatch, capsys):
    one, parts = tmp_path / "one.csv", tmp_path / "parts"
    assert predict(images, "-o", one, "--batch-size", 2)[0] == 0
    status, out, _ = predict(images, "-o", parts, "--batch-size", 2, "--shard", "0/3")
    assert (status, f"unseen merge {parts}" in out) == (0, True)
    for rank in (1, 2):  # as torchrun and Slurm say it
        named = (
            {"RANK": rank, "WORLD_SIZE": 3} if rank == 1 else {"SLURM_ARRAY_TASK_ID": 2, "SLURM_ARRAY_TASK_COUNT": 3}
        )
        for name, value in named.items():
            monkeypatch.setenv(name, str(value))
        assert predict(images, "-o", parts, "--batch-size", 2)[0] == 0
        for name in named:
            monkeypatch.delenv(name)
    status, _, err = predict(images, "-o", tmp_path / "x.csv", "--shard", "0/3")
    assert (status, "a shard goes to a folder of parts" in err) == (2, True)
    monkeypatch.setattr(sys, "argv", ["unseen", "merge", str(parts), "-o", str(tmp_path / "all.csv")])
    cli.main()
    assert "9 images" in capsys.readouterr().out
    assert (tmp_path / "all.csv").read_bytes() == one.read_bytes()


def test_rows_on_standard_output(predict, images, tmp_path):
    """A CSV, or with --json a line an image, the same as in a file."""
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    inputs = [images, tmp_path / "broken.jpg"]
    assert predict(*inputs, "-o", tmp_path / "found.csv", "--batch-size", 2)[0] == 1
    status, out, err = predict(*inputs, "-o", "-", "--batch-size", 2)
    assert (status, out) == (1, (tmp_path / "found.csv").read_text())
    assert "1 of 10 images could not be read" in err
    _, out, _ = predict(*inputs, "-o", "-", "--batch-size", 2, "--json")
    predict(*inputs, "-o", tmp_path / "found.jsonl", "--batch-size", 2)
    lines = [json.loads(line) for line in out.splitlines()]
    assert {line.pop("json_version") for line in lines} == {1}
    assert lines == [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert {p.name for p in tmp_path.iterdir()} == {"broken.jpg", "found.csv", "found.jsonl"}


def test_an_image_on_standard_input(unseen, commands, model, images, tmp_path, monkeypatch):
    data = (images / "3.jpg").read_bytes()
    status, out, err = commands.call(tmp_path, "predict", model, "-", "--device", "cpu", "--json", given=data)
    assert status == 0, err
    (found,) = json.loads(out)["items"]
    (expected,) = Recognizer.load(model, device="cpu").predict(images / "3.jpg", top=3)
    assert found == expected.as_dict() | {"image": "-"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data[:200])))  # torn
    status, _, err = unseen("predict", model, "-", "--device", "cpu", "--json")
    assert status == 1
    assert "error: -: " in err


@pytest.fixture
def ranked(model, tmp_path, monkeypatch):
    """The model with ranks, and a threshold that single classes do not reach."""
    made = Recognizer.load(model, device="cpu")
    for name, taxa in (("Rook", {"genus": "Corvus"}), ("Raven", {"genus": "Corvus"}), ("Jay", {"genus": "Garrulus"})):
        made.edit_taxa(name, taxa)
    made.edit_taxa("Rook", {"family": "Corvidae"})
    made.threshold = 0.3
    return made.save(tmp_path / "ranked")


def test_ranks_on_the_command_line(unseen, ranked, images, tmp_path):
    status, out, err = unseen("predict", ranked, images, "--rank", "genus", "--top", "5", "--json")
    assert (status, err) == (0, "")
    for found in json.loads(out)["items"]:
        assert found["rank"] == "genus"
        assert {c["name"] for c in found["classes"]} == {"Corvus", "Garrulus"}
    assert unseen("predict", ranked, images, "-o", tmp_path / "a.csv")[0] == 0
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    asked = Recognizer.load(ranked, device="cpu").predict(sorted(images.iterdir()))
    assert [r["answer"] for r in rows] == [p.answer for p in asked]
    assert [float(r["genus_confidence"]) for r in rows] == pytest.approx(
        [p.ranks[1].confidence for p in asked], abs=1e-6
    )
    status, _, err = unseen("predict", ranked, images, "--rank", "order")
    assert status == 2
    assert "the classes have no rank" in err
    status, _, err = unseen("predict", ranked, images, "--rank", "family")
    assert status == 2
    assert "there is nothing to choose" in err


def test_a_contact_sheet_is_of_a_rank_and_shows_the_prior(unseen, ranked, images, tmp_path):
    (tmp_path / "prior.csv").write_text("class,weight\nRook,99\nJay,1\n")
    page = tmp_path / "sheet.html"
    asked = ["predict", ranked, images, "--rank", "genus", "--prior", tmp_path / "prior.csv", "--html", page]
    assert unseen(*asked)[0] == 0
    text = page.read_text()
    data = json.loads(re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])
    taxonomy = Recognizer.load(ranked, device="cpu").table.taxonomy
    assert data["classes"] == list(taxonomy.names(taxonomy.rank("genus")))
    for item in data["items"]:
        assert {name for name, _, _ in item["classes"]} <= set(data["classes"])
        assert re.fullmatch(r".+ \(\d+%\)", item["alone"])
        assert item["alone"].rpartition(" (")[0] in data["classes"]
    assert "by genus</title>" in text


def test_a_prior_on_the_command_line(unseen, ranked, images, tmp_path):
    (tmp_path / "prior.csv").write_text("class,place,5,6\nRook,park,99,1\nJay,park,1,99\n")
    prior = ["--prior", tmp_path / "prior.csv"]
    status, out, err = unseen("predict", ranked, images, *prior, "--place", "park", "--month", "May", "--json")
    assert status == 0
    assert "3 classes are not in the prior and get its mean weight" in err
    found = json.loads(out)["items"]
    for one in found:  # 99, 1 and three times their mean
        share = {"Rook": 99 / 250, "Jay": 1 / 250}.get(one["classes"][0]["name"], 50 / 250)
        assert one["prior"] == pytest.approx(share)
    assert all({"without_prior", "prior"} <= set(f) for f in found)
    table = unseen("predict", ranked, images, *prior, "--place", "park", "--month", "5")[1]
    assert "without the prior" in table
    for more, line in [
        ((), "the prior depends on the place, and none is given"),
        (("--place", "park"), "the prior depends on the month, and none is given"),
        (("--place", "pork", "--month", "5"), 'no place "pork" — did you mean "park"?'),
        (("--place", "park", "--month", "7"), "the prior has no month 7"),
    ]:
        status, _, err = unseen("predict", ranked, images, *prior, *more)
        assert status == 2
        assert line in err
    assert "there is no prior" in unseen("predict", ranked, images, "--place", "park")[2]


def test_each_image_has_its_own_place_and_month(unseen, ranked, images, tmp_path):
    (tmp_path / "prior.csv").write_text("class,place,5,6\nRook,park,99,1\nJay,park,1,99\n")
    listed = [f"{images}/{i}.jpg,park,{day}" for i, day in enumerate(("2026-05-02", "2026-06-02", ""))]
    (tmp_path / "list.csv").write_text("\n".join(["image,place,date", *listed]))
    output = tmp_path / "found.csv"
    asked = ["predict", ranked, "--list", tmp_path / "list.csv", "--prior", tmp_path / "prior.csv", "-o", output]
    status, _, err = unseen(*asked, "--only", "Rook,Jay", "--unknown", "off")
    assert (status, "1 image without a known month" in err) == (0, True)
    rows = list(csv.DictReader(output.open()))
    shares = [float(r["prior"]) if r["class"] == "Rook" else 1 - float(r["prior"]) for r in rows]
    assert shares == pytest.approx([0.99, 0.01, 0.5])
    taken = tmp_path / "taken.jpg"
    image = Image.open(images / "0.jpg")
    exif = image.getexif()
    exif.get_ifd(0x8769)[36867] = "2025:06:30 08:00:00"
    image.save(taken, exif=exif)
    how = ["--prior", tmp_path / "prior.csv", "--place", "park", "--month", "exif", "--only", "Rook,Jay"]
    (found,) = json.loads(unseen("predict", ranked, taken, *how, "--unknown", "off", "--json")[1])["items"]
    assert found["prior"] == pytest.approx(0.99 if found["classes"][0]["name"] == "Jay" else 0.01)
