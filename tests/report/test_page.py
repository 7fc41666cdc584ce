"""The report: what it says is what was measured, and a browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

import unseen
from unseen.report.page import write_report
from unseen.report.tables import percent, result_rows


@pytest.fixture(scope="module")
def page(tiny_guide, tiny_backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    options = {"backbone": tiny_backbone, "cache": folder / "cache", "device": "cpu"}
    eszsl = unseen.fit("eszsl", tiny_guide, folder / "eszsl", **options)
    run = unseen.fit("msdn", tiny_guide, folder / "msdn", recipe={"epochs": "3", "lr": "1e-3"}, **options)
    return run, write_report(run, others=[eszsl], device="cpu", cache=folder / "cache")


def test_numbers_are_the_run_s(page):
    run, path = page
    text = path.read_text()
    found = run.results["protocols"]["honest"]["metrics"]
    for name in ("T1", "U", "S", "H"):
        assert f"{percent(found[name]['mean'])}\n[" in text
    assert run.manifest["data"]["fingerprint"] in text
    assert "not comparable with published ones" in text
    assert len(re.findall(r"<td>(msdn|eszsl)</td>", text)) == 2


def test_it_is_self_contained(page):
    text = page[1].read_text()
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "<script" not in text
    assert text.count("data:image/jpeg;base64") >= 8


def test_names_are_escaped(page, tmp_path):
    run, _ = page
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    manifest = (copy / "manifest.json").read_text().replace('"warnings": []', '"warnings": ["<b>&bold</b>"]')
    (copy / "manifest.json").write_text(manifest)
    text = write_report(unseen.Run(copy), device="cpu", cache=run.folder.parent / "cache").read_text()
    assert "&lt;b&gt;&amp;bold&lt;/b&gt;" in text


def test_rows_say_data_backbone_protocol_seeds(page):
    (row,) = result_rows([page[0]])
    assert row["protocol"] == "honest"
    assert row["seeds"] == "0"
    assert "test_resnet 64px random, frozen" in row["backbone"]
    assert row["data"].startswith("tiny (")


@pytest.mark.browser
def test_a_browser_shows_it(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    shot = tmp_path / "shot.png"
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,1400"]
    subprocess.run([*command, f"--screenshot={shot}", page[1].as_uri()], timeout=120, check=True, capture_output=True)
    from PIL import Image

    with Image.open(shot) as seen:
        assert (
            len(seen.convert("RGB").resize((110, 140)).getcolors(maxcolors=20000)) > 100
        )  # pictures, not a blank page
