"""``unseen init`` and ``check`` as a person uses them: from an empty folder to one that is ready to train."""

from __future__ import annotations

import json

import numpy as np
import openpyxl
import pytest
from PIL import Image

from unseen.data.folder import load_folder
from unseen.data.template import EXAMPLE, write_example


@pytest.mark.parametrize("format", ["xlsx", "csv"])
def test_from_the_template_to_ready(unseen, tmp_path, format):
    folder = tmp_path / "animals"
    status, said, _ = unseen("init", folder, "--format", format)
    assert status == 0
    assert f"wrote {folder}/classes.{format}" in said
    assert "unseen check" in (folder / "README.txt").read_text()
    status, said, _ = unseen("check", folder)
    assert status == 2
    assert f'classes.{format}, row 2: "{EXAMPLE} red fox" is an example row of the template' in said
    assert "1 problem to fix first" in said
    status, _, complaint = unseen("init", folder)
    assert status == 2
    assert "already exists" in complaint
    for i, name in enumerate(("fox", "wolf", "bear")):
        (folder / "images" / name).mkdir()
        for j in range(8):
            pixels = np.random.default_rng([i, j]).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((80, 80)).save(folder / "images" / name / f"{j}.jpg")
    rows = [["class", "brown", "size"], ["fox", "no", "small"], ["wolf", "no", "medium"], ["bear", "yes", "large"]]
    rows.append(["badger", "no", "small"])
    table = folder / f"classes.{format}"
    if format == "csv":
        table.write_text("\n".join(",".join(row) for row in rows))
    else:
        book = openpyxl.load_workbook(table)  # attributes and help stay
        sheet = book["classes"]
        sheet.delete_rows(1, 10)
        for row in rows:
            sheet.append(row)
        book.save(table)
    status, said, _ = unseen("check", folder)
    assert status == 0
    assert "3 classes with images (seen): fox, wolf, bear" in said
    assert "1 class in the table only (unseen): badger" in said
    assert 'classes "fox" and "badger": the same attributes: the model cannot separate them' in said
    assert said.splitlines()[-1].startswith(f"ready to train: unseen train {folder}")
    assert load_folder(folder).table.names == ("fox", "wolf", "bear", "badger")


def test_the_template_explains_itself(unseen, tmp_path):
    unseen("init", tmp_path / "x")
    book = openpyxl.load_workbook(tmp_path / "x" / "classes.xlsx")
    assert book.sheetnames == ["classes", "attributes", "help"]
    assert all(cell.comment for cell in book["classes"][1])
    assert any("Words, separated by semicolons" in str(row[0].value) for row in book["help"].iter_rows())


def test_a_folder_with_images_gets_its_rows(unseen, tmp_path):
    for name in ("owl", "hawk"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "1.jpg").touch()
    unseen("init", tmp_path, "--format", "csv")
    lines = (tmp_path / "classes.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["class", "hawk", "owl"]


def test_check_prints_json_and_every_finding(unseen, tiny_guide):
    status, said, _ = unseen("check", tiny_guide, "--json")
    result = json.loads(said)
    assert status == 0
    assert result["ready"]
    assert len(result["classes"]["seen"]) + len(result["classes"]["unseen"]) == 12
    assert set(result["columns"].values()) == {"numbers, used as they are: 0 to 100"}
    status, said, _ = unseen("check", tiny_guide)
    assert "all 53 columns" in said or "columns, " in said
    few = [f for f in result["findings"] if f["kind"] == "classes with few images"]
    assert (len(few) > 10) == ("(--all lists them)" in said)
    assert len(unseen("check", tiny_guide, "--all")[1]) >= len(said)


def test_nothing_is_drawn_as_markup(unseen, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "classes.csv").write_text("class,[bold]x\n[red]a,[/]\nb,c\n")
    status, said, _ = unseen("check", tmp_path)
    assert status == 2
    assert "[bold]x" in said
    assert "[red]a" in said


@pytest.mark.parametrize("format", ["xlsx", "csv"])
def test_the_example_is_sound(unseen, tiny_guide, tmp_path, format):
    birds = load_folder(tiny_guide)
    folder = tmp_path / "birds"
    write_example(folder, birds, format)
    status, said, _ = unseen("check", folder)
    assert status == 0, said
    data = load_folder(folder)
    assert data.table.names == birds.table.names
    np.testing.assert_array_equal(data.table.seen, birds.table.seen)
    assert len(data.files) == (birds.split == "trainval").sum()
    new = {p.parent.name for p in (folder / "new-images").rglob("*.jpg")}
    assert new == {n for n, s in zip(birds.table.names, birds.table.seen, strict=True) if not s}
    crown = data.table.attributes.names.index("crown color::red")
    there = birds.table.attributes.names.index("crown_color::red")
    np.testing.assert_array_equal(100 * data.table.values[:, crown], birds.table.values[:, there])
    crest = data.table.attributes.names.index("crest")
    there = birds.table.attributes.names.index("crest::crested")
    np.testing.assert_array_equal(100 * data.table.values[:, crest], birds.table.values[:, there])
    assert data.table.attributes.parts[crown] == "crown"


def test_a_run_keeps_how_columns_were_read(tiny_guide, tiny_backbone, tmp_path):
    from unseen.classes.spreadsheets.columns import Encoding
    from unseen.training.config import RunConfig
    from unseen.training.run import fit

    write_example(tmp_path / "birds", load_folder(tiny_guide), "csv")
    options = {"backbone": tiny_backbone, "draws": 1, "holdouts": 0}
    config = RunConfig(method="eszsl", dataset=str(tmp_path / "birds"), **options)
    run = fit(config, tmp_path / "run", cache=tmp_path / "cache", device="cpu")
    data = load_folder(tmp_path / "birds")
    kept = Encoding.from_json(json.loads((run.folder / "encoding.json").read_text()))
    assert kept == data.encoding
    row = kept.decode(data.table.values[0])
    np.testing.assert_array_equal(kept.encode(row), data.table.values[0])


def test_own_words_for_not_known_are_kept_with_the_folder(unseen, tmp_path):
    folder = tmp_path / "animals"
    for name in ("fox", "wolf", "bear"):
        (folder / "images" / name).mkdir(parents=True)
        for j in range(8):
            pixels = np.random.default_rng([len(name), ord(name[0]), j]).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((80, 80)).save(folder / "images" / name / f"{j}.jpg")
    rows = ("class,legs,kg", "fox,4,6", "wolf,5,40", "bear,6,200", "badger,4,xx", "otter,5,-9")
    (folder / "classes.csv").write_text("\n".join(rows))
    status, said, _ = unseen("check", folder)
    assert status == 2
    assert 'row 5, column "kg": "xx"' in said
    status, said, _ = unseen("check", folder, "--missing", "xx", "--missing=-9")
    assert status == 0
    assert "2 blank" in said
    assert (folder / "missing.txt").read_text() == "xx\n-9\n"
    assert unseen("check", folder)[0] == 0
    table = load_folder(folder).table
    kilograms = table.values[:, table.attributes.index("kg::high")]
    np.testing.assert_allclose(kilograms[3:], kilograms[:3].mean())
    assert kilograms[:3].tolist() == [0.0, 34 / 194, 1.0]
