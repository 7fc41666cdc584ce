"""Progress bars on a narrow terminal: the running task stands there with its bar, whatever its note."""

from __future__ import annotations

import re

from unseen.ground.progress import bars


def test_the_latest_tasks_stand_on_a_narrow_terminal(monkeypatch, capsys):
    for name, value in {"COLUMNS": "80", "LINES": "24", "TTY_COMPATIBLE": "1", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    plan = "(1,408 images, 30.0 GB to write, 54.0 GB free, about 2 h 10 min)"
    with bars() as progress:
        progress("extracting features", 640, 1408, plan)
        progress("extracting features", 700, 1408, plan)
    with bars() as progress:
        for number in range(30):
            progress(f"class hold-out {number} of 30, seed 0: validation", 7, 9, "loss 0.123 T1 45.6 H 78.9")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert text.count(plan) == 1
    assert re.search(r"extracting features\s+\S+\s+700/1408", text)
    last = [line for line in text.replace("\r", "\n").split("\n") if line.strip()][-6:]
    assert [re.match(r"class hold-out (\d+) of 30, seed 0: validation\s.*7/9.*loss", line)[1] for line in last] == [
        "24", "25", "26", "27", "28", "29"
    ]  # fmt: skip
