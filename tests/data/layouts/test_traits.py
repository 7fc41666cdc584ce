"""Trait tables become class tables, with proposals that a person can change."""

from __future__ import annotations

import http.server
import importlib.util
import threading
from pathlib import Path

import pandas as pd
import pytest

from unseen.classes.spreadsheets.tables import read_table
from unseen.data.folder import read_classes, stop
from unseen.data.layouts.importing import Options, import_export
from unseen.data.layouts.sheets import csv_address, fetch_table, is_sheet
from unseen.data.layouts.traits import pick, plain
from unseen.errors import DataError

spec = importlib.util.spec_from_file_location("samples", Path(__file__).with_name("samples.py"))
samples = importlib.util.module_from_spec(spec)
spec.loader.exec_module(samples)


def about(folder):
    frame = read_table(folder / "attributes.csv")
    return {a: (s, d) for a, s, d in zip(frame["attribute"], frame["scale"], frame["description"], strict=True)}


def test_a_wide_table(tmp_path):
    found = import_export(samples.avonet(tmp_path), tmp_path / "birds")
    assert found.layout.name == "traits"
    told = about(tmp_path / "birds")
    assert {name for name, (scale, _) in told.items() if scale == "ignore"} == {
        "Avibase.ID1", "Total.individuals", "Female", "Mass.Source"
    }  # fmt: skip
    assert told["Family1"] == told["Order1"] == ("rank", "suggested: a taxonomic rank, not a trait")
    assert told["Avibase.ID1"][1] == "suggested: an identifier"
    assert told["Total.individuals"][1] == "suggested: a sample size"
    assert told["Mass"] == ("log", "suggested: skewed, 4 to 4659.6")
    assert told["Range.Size"][0] == "log"
    assert told["Beak.Length_Culmen"] == told["Habitat"] == ("", "")
    classes = read_classes(tmp_path / "birds", stop)  # and it is a class table
    assert classes.names[:2] == ("Avis a", "Avis b")
    assert classes.taxonomy.ranks == ("Order1", "Family1")
    assert "Mass::high" in classes.attributes.names
    assert "Habitat::Forest" in classes.attributes.names
    assert not any(name.startswith(("Family1", "Female")) for name in classes.attributes.names)
    with pytest.raises(DataError, match=r"classes\.csv: already exists"):
        import_export(tmp_path / "AVONET1_BirdLife.csv", tmp_path / "birds")


def test_classes_that_are_wanted(tmp_path):
    source = samples.avonet(tmp_path)
    import_export(source, tmp_path / "two", Options(only=("avis_c", "Avis a")))
    assert read_table(tmp_path / "two/classes.csv")["class"].tolist() == ["avis_c", "Avis a"]
    with pytest.raises(DataError, match='no class "Avus b" — did you mean "Avis b"'):
        import_export(source, tmp_path / "none", Options(only=("Avus b",)))


def test_a_long_table(tmp_path):
    found = import_export(samples.traitbank(tmp_path), tmp_path / "frogs")
    assert found.layout.name == "traits-long"
    frame = read_table(tmp_path / "frogs/classes.csv")
    assert frame.to_dict("records") == [
        {"class": "Rana a", "body mass (g)": "25", "habitat": "forest; marsh"},
        {"class": "Rana b", "body mass (g)": "7", "habitat": "marsh"},
    ]
    assert '"body mass": 1 values in other units than g ignored' in found.notes


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("AccSpeciesName,TraitName,StdValue,UnitName", "Poa a,Leaf area,12,mm2"),
        ("scientificName,measurementType,measurementValue,measurementUnit", "Poa a,Leaf area,12,mm2"),
        ("taxon,trait,value,unit", "Poa a,Leaf area,12,mm2"),
    ],
)
def test_long_tables_by_their_synonyms(header, row, tmp_path):
    (tmp_path / "t.csv").write_text(f"{header}\n{row}\nPoa b,Leaf shape,round,\n")
    assert import_export(tmp_path / "t.csv", tmp_path / "d").layout.name == "traits-long"
    frame = read_table(tmp_path / "d/classes.csv")
    assert frame.columns.tolist() == ["class", "Leaf area (mm2)", "Leaf shape"]
    assert frame["class"].tolist() == ["Poa a", "Poa b"]


def test_names_of_columns():
    assert plain("Avibase.ID1") == "avibase id1"
    assert plain("dwc:scientificName") == "scientific name"
    assert pick(["id", "English Name", "scientific_name"], ("species", "scientific name", "english name")) == [
        "scientific_name", "English Name"
    ]  # fmt: skip


def test_rows_of_one_class_are_merged_and_other_names_left_out(tmp_path):
    (tmp_path / "t.csv").write_text(
        "species,common name,wing mm,colour\nPoa a,grass,10,red\nPoa a,grass,14,blue\nPoa b,reed,8,NA\n"
    )
    found = import_export(tmp_path / "t.csv", tmp_path / "d")
    assert "3 rows are 2 classes: medians of numbers, all words" in found.notes
    assert read_table(tmp_path / "d/classes.csv").to_dict("records") == [
        {"class": "Poa a", "common name": "grass", "wing mm": "12", "colour": "blue; red"},
        {"class": "Poa b", "common name": "reed", "wing mm": "8", "colour": ""},
    ]
    assert about(tmp_path / "d")["common name"] == ("ignore", "suggested: another name of the class")
    import_export(tmp_path / "t.csv", tmp_path / "e", Options(label="common name"))
    assert read_table(tmp_path / "e/classes.csv")["class"].tolist() == ["grass", "reed"]
    with pytest.raises(DataError, match='no column "latin" — --label NAME selects one'):
        import_export(tmp_path / "t.csv", tmp_path / "f", Options(label="latin"))


SHEET = "https://docs.google.com/spreadsheets/d/1AbC-d_E"


@pytest.mark.parametrize(
    ("link", "address"),
    [
        (f"{SHEET}/edit#gid=42", f"{SHEET}/export?format=csv&gid=42"),
        (f"{SHEET}/edit?gid=7#gid=7", f"{SHEET}/export?format=csv&gid=7"),
        (f"{SHEET}/edit?usp=sharing", f"{SHEET}/export?format=csv"),
        (
            "https://docs.google.com/spreadsheets/d/e/2PACX-1v/pubhtml?gid=3",
            "https://docs.google.com/spreadsheets/d/e/2PACX-1v/pub?output=csv&gid=3",
        ),
    ],
)
def test_links_to_sheets(link, address):
    assert is_sheet(link)
    assert csv_address(link) == address


def test_what_is_no_sheet():
    for link in ("https://docs.google.com/document/d/1", "https://example.org/spreadsheets/d/1", "birds.csv"):
        assert not is_sheet(link)


class Sheets(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        kind, body = (
            ("text/html", b"<html>Sign in") if "private" in self.path else ("text/csv", b"class,big\nrook,yes\n")
        )
        self.send_response(404 if "gone" in self.path else 200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *about):
        pass


def test_a_sheet_is_fetched(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sheets)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        table = fetch_table(f"{base}/ok", tmp_path / "sheet.csv")
        assert import_export(table, tmp_path / "d").layout.name == "traits"
        assert pd.read_csv(tmp_path / "d/classes.csv")["class"].tolist() == ["rook"]
        with pytest.raises(DataError, match='a sign-in page instead of a table — share it as "anyone with the link"'):
            fetch_table(f"{base}/private", tmp_path / "sheet.csv")
        with pytest.raises(DataError, match="404 Not Found"):
            fetch_table(f"{base}/gone", tmp_path / "sheet.csv")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch_table(f"{base}/ok", tmp_path / "sheet.csv")
