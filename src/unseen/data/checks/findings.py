"""The result of a check: findings, each with its place and a hint, and what the folder holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unseen.classes.spreadsheets.columns import Encoding
from unseen.errors import DataError


@dataclass(frozen=True)
class Finding:
    """A finding; ``level`` is error (training would stop), warning or note, ``kind`` is the group to list it in."""

    level: str
    kind: str
    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} — {self.hint}" if self.hint else text


@dataclass
class CheckResult:
    """What a folder holds, and all findings.

    Attributes:
        folder: the dataset folder.
        findings: by kind, in the order of checking.
        classes: table, seen and unseen names, and number of taxa of each rank; empty without a readable table.
        images: number of images by split and by seen class.
        encoding: how the columns were understood.
        features: names of the imported features, if the folder has them in place of images.
    """

    folder: Path
    findings: list[Finding] = field(default_factory=list)
    classes: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)
    encoding: Encoding | None = None
    features: list[str] | None = None

    def of(self, level: str) -> list[Finding]:
        """Findings of one level."""
        return [finding for finding in self.findings if finding.level == level]

    @property
    def ready(self) -> bool:
        """Whether training would start."""
        return not self.of("error")

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return {
            "folder": str(self.folder),
            "ready": self.ready,
            "classes": self.classes,
            "images": self.images,
            "features": self.features,
            "columns": {} if self.encoding is None else {c.name: c.describe() for c in self.encoding.columns},
            "findings": [asdict(finding) for finding in self.findings],
        }


class Recorder:
    """Adds findings to a result, with places relative to the folder."""

    def __init__(self, result: CheckResult) -> None:
        self._result, self._root = result, result.folder

    def __call__(self, level: str, kind: str, where: object, what: str, hint: str = "") -> None:
        """Add a finding; arguments as in :class:`Finding`."""
        self._result.findings.append(Finding(level, kind, self._short(where), what, hint))

    def errors(self, errors: Sequence[DataError]) -> None:
        """Add errors, which would stop training."""
        for error in errors:
            self("error", "errors that stop training", error.where or self._root, error.problem, error.hint or "")

    def _short(self, where: object) -> str:
        return str(where).removeprefix(str(self._root)).removeprefix(os.sep)
