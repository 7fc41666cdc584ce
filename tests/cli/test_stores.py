"""`unseen stores`: damage found, dropped, and done again."""

from __future__ import annotations

import json

import pytest

from unseen.backbones.backbone import Backbone
from unseen.data.folder import load_folder
from unseen.features.extract import extract


@pytest.fixture
def store(tiny_guide, tiny_backbone, tmp_path):
    data = load_folder(tiny_guide)
    return extract(data.paths(), Backbone(tiny_backbone), tmp_path / "regions", names=data.files, batch_size=16).folder


def test_damage_is_told_and_dropped(store, tmp_path, unseen):
    def state(*options):
        status, out, _ = unseen("stores", tmp_path, "--json", *options)
        return status, json.loads(out)["items"][0]

    assert state() == (
        0,
        {
            "folder": str(store),
            "backbone": "test_resnet",
            "images": 72,
            "nbytes": 72 * 3072,
            "finished": 72,
            "damaged": [],
            "problem": None,
            "whole": True,
        },
    )
    data = bytearray((store / "stage0.bin").read_bytes())
    data[20 * 3072] ^= 1
    (store / "stage0.bin").write_bytes(data)
    status, found = state()
    assert (status, found["damaged"], found["whole"]) == (1, list(range(16, 32)), False)
    status, out, _ = unseen("stores", "--cache", tmp_path)
    assert status == 1
    assert "16 images damaged" in out
    assert state("--fix")[0] == 0
    status, found = state()
    assert (status, found["finished"], found["whole"]) == (0, 56, False)


def test_a_lost_description_goes_as_a_whole(store, tmp_path, unseen):
    (store / "store.json").write_text("{")
    assert unseen("stores", store)[0] == 1
    assert unseen("stores", store, "--fix")[0] == 0
    assert not store.exists()
    status, _, err = unseen("stores", store)
    assert status == 2
    assert "no region stores" in err


def test_hinting_leaves_what_is_not_ours(unseen, tmp_path):
    """Folders of other people may have files of our names in them."""
    mine = tmp_path / "regions" / "thesis"
    mine.mkdir(parents=True)
    (mine / "journal.jsonl").write_text("2026-11-22 wrote\n")
    (mine / "thesis.txt").write_text("mine")
    unseen("stores", tmp_path, "--fix")
    assert (mine / "thesis.txt").read_text() == "mine"
    (mine / "stage0.bin").write_bytes(b"1")  # a store without its description, and something beside it
    unseen("stores", tmp_path, "--fix")
    assert [file.name for file in mine.iterdir()] == ["thesis.txt"]
