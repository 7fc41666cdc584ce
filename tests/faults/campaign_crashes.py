"""A small slice of each campaign of `python -m faults`."""

from __future__ import annotations

import argparse

import pytest

from faults import attempts, corruption, disk, kill, together


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    attempts.warm()
    return kill.prepare(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def parser():
    return argparse.ArgumentParser()


@pytest.mark.parametrize("name", ["extraction", "prediction to CSV"])
def test_killed_and_repeated(base, name):
    work = next(work for work in kill.works(base) if work.name == name)
    row, tally = kill.campaign(work, base, 3, [0, 0], None, print)
    assert tally.failures == []
    assert row["killed at a write"] + row["killed at a time"] >= 3


@pytest.mark.parametrize("name", ["init", "save", "classes add"])
def test_full_disk(base, name, tmp_path):
    writing = next(writing for writing in disk.writings(base) if writing.name == name)
    first, whole, _ = disk.undisturbed(writing, tmp_path / "disk")
    levels = [disk.Level(write=n, error=disk.errno.ENOSPC) for n in (1, first.writes // 2, first.writes)]
    failures = []
    row = disk.tally(writing, tmp_path / "disk", whole, levels, failures)
    assert failures == []
    assert row["the same bytes after"] == 3


@pytest.mark.parametrize("name", ["region store, features", "region store, journal", "run, decisions"])
def test_damaged(base, name):
    if not (base / "run").exists():
        corruption.more(base)
    file = next(file for file in corruption.files() if file.name == name)
    row, failures = corruption.damaged(file, base, 30, 0)
    assert failures == []
    assert row["noticed, named"] > 10


def test_two_at_once(base):
    failures = []
    make = kill.works(base)[0].make(base / "pair")
    row = together._pair("extraction", make, make, [], base / "pair", 1, 0, failures)
    assert failures == []
    assert row["the same bytes"] == row["both finished"] == 1


def test_clock(base):
    failures = []
    assert together._changed_images(base, failures)["the same bytes"] == 24
    assert failures == []


@pytest.mark.parametrize("module", [corruption, disk, kill, together])
def test_options(parser, module):
    module.add_arguments(parser)
    assert parser.parse_args([]).seed == 0
