"""Load a trained model by its folder or id."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from unseen.recognizer.names import HUB_ID
from unseen.recognizer.recognizer import Recognizer


def load_recognizer(folder_or_id: PathLike[str] | str, *, seed: int | None = None, device: str = "auto") -> Recognizer:
    """Load a trained model, ready to predict.

    Args:
        folder_or_id: a run or its folder, a saved folder, or the hub's ``OWNER/NAME``, see :meth:`Recognizer.load`.
        seed: for a run, the seed of the model; by default the first.
        device: where to compute.

    Raises:
        RunError: no such model, unfinished, or damaged.
    """
    name = str(folder_or_id)
    if not Path(name).exists() and HUB_ID.fullmatch(name.partition("@")[0]):
        name = f"hf:{name}"
    return Recognizer.load(name, seed=seed, device=device)
