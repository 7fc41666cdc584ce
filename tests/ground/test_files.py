"""Files whole or not at all, and any change of them noticed."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from unseen.errors import RunError, UnseenError
from unseen.ground.files import (
    SEAL,
    is_left_over,
    read_arrays,
    read_json,
    write_arrays,
    write_json,
    write_text,
    write_with,
)
from unseen.ground.tensors import load_tensors, save_tensors

KILLED = """
import os, signal, sys
from pathlib import Path
from unseen.ground.files import write_with
write_with(Path(sys.argv[1]), lambda temporary: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / "results.json"
    subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    left = list(tmp_path.iterdir())
    assert len(left) == 2  # it and its lock
    assert all(p.name.startswith(".results.json.") and is_left_over(p) for p in left)
    write_text(tmp_path / "other.json", "{}")
    assert len(list(tmp_path.iterdir())) == 3  # only that of the same file
    write_text(path, "{}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.json", "results.json"]


def test_what_another_process_is_writing_stays(tmp_path):
    path = tmp_path / "x"

    def slow(temporary):
        write_text(path, "of another")  # meanwhile
        temporary.write_text("mine")

    write_with(path, slow)
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_a_live_process_is_writing_is_not_swept(tmp_path):
    path = tmp_path / "x"
    waiting = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "print(flush=True) or input()")
    with subprocess.Popen(
        [sys.executable, "-c", waiting, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout.readline()
        during = {p.name for p in tmp_path.iterdir()}
        write_text(path, "mine")
        assert {p.name for p in tmp_path.iterdir()} == during | {"x"}
        other.communicate(b"\n")
        assert other.returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_refused_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "x"
    write_text(path, "before")

    def full(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UnseenError, match=r"x: No space left on device — free some disk space"):
        write_with(path, full)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_changed_digit_is_noticed(tmp_path):
    path = tmp_path / "results.json"
    value = {"H": 0.25, "names": ["é", "b"], "none": None, "whole": 3}
    write_json(path, value, sealed=True)
    assert read_json(path) == value
    path.write_text(json.dumps(json.loads(path.read_text())))  # another layout of the same
    assert read_json(path) == value
    path.write_text(path.read_text().replace("0.25", "0.35"))
    with pytest.raises(RunError, match=r"results.json: damaged: the checksum does not match .* — train again"):
        read_json(path, RunError, "train again")
    changed = json.loads(path.read_text())
    del changed[SEAL]  # on purpose, as the message says
    path.write_text(json.dumps(changed))
    assert read_json(path)["H"] == 0.35


def test_every_bit_of_tensors_counts(tmp_path):
    path = tmp_path / "w.safetensors"
    tensors = {"a": torch.arange(3.0), "b": torch.ones((), dtype=torch.int64), "c": torch.zeros(0, 2)}
    save_tensors(path, tensors, {"step": "7"})
    found, about = load_tensors(path)
    assert about == {"step": "7"}
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for place in range(start, len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(SafetensorError, match="checksum"):
            load_tensors(path)
    changed = data.replace(b'\\"step\\": \\"7\\"', b'\\"step\\": \\"8\\"')
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(SafetensorError, match="checksum"):
        load_tensors(path)


def test_tensors_of_others_carry_no_checksum(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors", {"format": "pt"})
    found, about = load_tensors(tmp_path / "x.safetensors")
    assert about == {"format": "pt"}
    assert found["a"].tolist() == [1, 1]


@pytest.mark.parametrize("damage", [lambda d: d[:-30], lambda d: b"", lambda d: d[:160] + b"\0\1" + d[162:]])
def test_damaged_arrays_are_one_line(tmp_path, damage):
    path = tmp_path / "a.npz"
    write_arrays(path, x=np.arange(20), y=np.array(["a", "b"]))
    found = read_arrays(path, ("x", "y"), RunError, "again")
    assert found["x"].tolist() == list(range(20))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match=r"a.npz: damaged .* — again"):
        read_arrays(path, ("x", "y"), RunError, "again")
    with pytest.raises(RunError, match="no such file"):
        read_arrays(tmp_path / "b.npz", ("x",), RunError, "again")


def test_no_room_for_tensors_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UnseenError, match=r"w\.safetensors: No space left on device — free some disk space"):
        save_tensors(tmp_path / "w.safetensors", {"a": torch.ones(2)})
    assert [p.name for p in tmp_path.iterdir()] == []


def test_texts_of_others_are_not_taken_for_ours(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors", {"sha256": "theirs"})
    assert load_tensors(tmp_path / "x.safetensors")[1] == {"sha256": "theirs"}
    save_file({"a": torch.ones(2)}, tmp_path / "y.safetensors", {"unseen": '{"reduce": 5}'})
    with pytest.raises(SafetensorError, match="metadata is damaged"):
        load_tensors(tmp_path / "y.safetensors")
