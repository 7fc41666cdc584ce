"""Find a model in a run folder or a saved folder. Opening a saved model imports no training code."""

from __future__ import annotations

from pathlib import Path

from unseen.recognizer.names import FACTS
from unseen.recognizer.parts import Parts
from unseen.recognizer.saved import read_saved


def find_parts(folder: Path, seed: int | None = None) -> Parts:
    """Parts of a saved folder, or of one seed of a run."""
    if (folder / FACTS).is_file():
        return read_saved(folder)
    from unseen.recognizer.runs import read_run

    return read_run(folder, seed)
