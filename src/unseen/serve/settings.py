"""Limits of a server, and its refusals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException

from unseen.classes.prior import Prior


@dataclass(frozen=True)
class Settings:
    """Limits of a server.

    Args:
        max_upload: largest size of a request, in bytes.
        max_pixels: largest number of pixels of an image.
        max_images: largest number of images of a request.
        queue: number of requests that are read, wait or are answered at one time; others are rejected.
        read_seconds: time for a client to send a request's body, or to read a part of an answer.
        idle_seconds: time that a connection stays open after an answer.
        connections: number at one time; further ones get status 503.
        added: number of classes that can be added.
        support_images: likewise, for all classes together.
        hosts: host names it answers to besides IP addresses and localhost.
        save: folder of the model, in which ``classes-in-use.csv`` follows every change of the classes; ``None`` keeps
            changes in memory.
        prior: weights of the classes by place and month, which requests choose.
        watch: folder of the model, whose classes are taken over when another process changes them; ``None`` for none.
        folder: folder of the model, into which ``POST /api/classes/save`` writes the classes; ``None`` refuses this.
    """

    max_upload: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_images: int = 64
    queue: int = 64
    read_seconds: float = 60.0
    idle_seconds: int = 20
    connections: int = 800
    added: int = 10_000
    support_images: int = 10_000
    hosts: tuple[str, ...] = ()
    save: Path | None = None
    watch: Path | None = None
    folder: Path | None = None
    prior: Prior | None = None


class Refusal(HTTPException):
    """A rejected request.

    Args:
        status: HTTP status.
        error: problem in one line.
        hint: how to fix it.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, error: str, hint: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, error, headers)
        self.hint = hint
