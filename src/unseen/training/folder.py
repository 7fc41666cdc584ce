"""Contents of a run folder."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from unseen.errors import RunError
from unseen.ground.files import read_json
from unseen.training.config import RunConfig


def default_folder(method: str, dataset: str) -> Path:
    """Default folder of a run: ``runs/METHOD-DATASET``."""
    return Path("runs") / f"{method.rpartition(':')[2]}-{dataset}"


class Run:
    """A finished or unfinished run folder."""

    def __init__(self, folder: PathLike[str] | str) -> None:
        self.folder = Path(folder).expanduser()
        if not (self.folder / "config.json").is_file():
            raise RunError("not a run folder", where=self.folder, hint="pass a run folder of `unseen train`")
        where = self.folder / "config.json"
        self.config = RunConfig.from_json(read_json(where, RunError, "train again"), where)

    def __fspath__(self) -> str:
        """Path protocol, so that a run is accepted wherever its folder is."""
        return str(self.folder)

    def __str__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        """Method, data and folder."""
        state = "" if (self.folder / "results.json").is_file() else ", unfinished"
        return f"<Run: {self.config.method} on {Path(self.config.dataset).name}, in {self.folder}{state}>"

    @property
    def results(self) -> dict[str, Any]:
        """The measured numbers; raises :class:`RunError` if there are none yet."""
        hint = "the run is unfinished; repeat its command"
        found: dict[str, Any] = read_json(self.folder / "results.json", RunError, hint)
        return found

    @property
    def validation(self) -> dict[str, Any]:
        """The numbers of the validation stage alone; raises :class:`RunError` if there are none yet."""
        hint = "the validation stage is unfinished; repeat its command"
        found: dict[str, Any] = read_json(self.folder / "validation.json", RunError, hint)
        return found

    @property
    def manifest(self) -> dict[str, Any]:
        """Versions, data, backbone and settings."""
        found: dict[str, Any] = read_json(self.folder / "manifest.json", RunError, "train again")
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """What readers of the results should know about the data, the configuration and the training, one line each.

        Raises:
            RunError: the run is unfinished.
        """
        return (*self.manifest["warnings"], *self.results["warnings"])

    @property
    def protocol(self) -> str:
        """Protocol of the run's model: honest if available."""
        return "honest" if "honest" in self.config.protocols else "paper"
