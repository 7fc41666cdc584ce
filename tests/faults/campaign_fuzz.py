"""A small slice of the fuzzing campaign, and that the campaign sees what it looks for."""

# ruff: noqa: E501 - lists of odd values
from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest
from faults.fuzz import targets
from faults.fuzz.canary import CODE
from faults.fuzz.runner import campaign
from faults.fuzz.target import Case, Target, WrongResultError

from unseen.errors import UnseenError

SLICE = {
    "npy": 20,
    "npz": 12,
    "pickle": 40,
    "words": 25,
    "mat": 25,
    "hdf5": 25,
    "lists": 20,
    "checkpoints": 15,
    "requests": 3,
}


@pytest.fixture(autouse=True)
def forks():
    if not hasattr(os, "fork") or not Path("/proc/self/clear_refs").exists():
        pytest.skip("cases are run in forked processes of Linux")


@pytest.mark.parametrize("name", SLICE)
def test_bad_input_is_refused_in_a_line(name, tmp_path):
    target = targets()[name]()
    target.warm(tmp_path)
    results = list(campaign([(target, i) for i in range(SLICE[name])], seed=9, jobs=1))
    assert len(results) == SLICE[name]
    assert [f"{r.why} [{r.said}]" for r in results if r.outcome == "failed"] == []
    assert {r.outcome for r in results} == ({"accepted"} if name == "requests" else {"accepted", "refused"})


class Bad(Target):
    """Does each thing that the campaign must see."""

    name: ClassVar[str] = "bad"
    seconds: ClassVar[float] = 1.0
    megabytes: ClassVar[float] = 64.0
    does: ClassVar = [
        lambda folder: None,
        lambda folder: _refuse("x.csv: wrong — fix it"),
        lambda folder: _refuse("wrong — fix it"),
        lambda folder: 1 / 0,
        lambda folder: _hang(),
        lambda folder: [b"x" * 200_000_000],
        lambda folder: exec(CODE),
        lambda folder: os.system("true"),
        lambda folder: (folder.parent / "elsewhere").write_text("x"),
        lambda folder: os._exit(3),
        lambda folder: _wrong(),
        lambda folder: _refuse("x.csv: \x1b[31m"),
    ]
    sees: ClassVar = [
        None, None, "names none of x.csv", "ZeroDivisionError", "hung", "took 1", "ran a file's text", "os.system", "open for writing", "ended with status",
        "wrong result", "error is not",
    ]  # fmt: skip

    def make(self, rng: Random, folder: Path) -> Case:
        number = int(folder.name.rpartition("-")[2])
        return Case(f"number {number}", ("x.csv",), data=number)

    def run(self, case: Case, folder: Path) -> None:
        self.does[case.data](folder)


class Raw(UnseenError):
    def __str__(self) -> str:
        return self.problem


def _refuse(line: str) -> None:
    raise Raw(line)


def _wrong() -> None:
    raise WrongResultError("another")


def _hang() -> None:
    while time.process_time() < 1e6:
        pass


def test_the_campaign_sees_what_it_looks_for():
    found = {r.index: r for r in campaign([(Bad(), i) for i in range(len(Bad.does))], seed=0, jobs=2)}
    assert sorted(found) == list(range(len(Bad.does)))
    for index, sign in enumerate(Bad.sees):
        result = found[index]
        assert result.said == f"number {index}"
        if sign is None:
            assert result.outcome != "failed", result.why
        else:
            assert result.outcome == "failed", (index, sign)
            assert sign in result.why


def test_a_case_is_a_function_of_target_seed_and_number(tmp_path):
    target = targets()["npy"]()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        target.make(Random("npy/3/7"), tmp_path / name)
    assert (tmp_path / "a/attribute_vectors.npy").read_bytes() == (tmp_path / "b/attribute_vectors.npy").read_bytes()
