"""What a server allows, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException


@dataclass(frozen=True)
class Settings:
    """Limits of a server.

    Args:
        max_upload: bytes of one request.
        max_pixels: of one image.
        max_images: of one request.
        queue: requests that are read, wait or are answered at one time; any more are turned away.
        read_seconds: how long a client may take to send a request's body, or to take a part of an answer.
        idle_seconds: how long a connection stays open after an answer.
        connections: at one time; requests beyond hear 503.
        added: classes beyond those that the model came with.
        support_images: likewise, of all classes together.
        hosts: host names it answers to besides IP addresses and localhost.
        save: the model's folder, whose ``classes-in-use.csv`` follows every change of the classes; ``None`` keeps
            changes in memory.
        folder: the model's folder, into which ``POST /api/classes/save`` writes the classes once; ``None`` refuses it.
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
    folder: Path | None = None


class Refusal(HTTPException):
    """A request that is turned away.

    Args:
        status: the HTTP status.
        error: what is wrong, in one line.
        hint: what to do about it.
        headers: more headers of the answer.
    """

    def __init__(self, status: int, error: str, hint: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, error, headers)
        self.hint = hint
