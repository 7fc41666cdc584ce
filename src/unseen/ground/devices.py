"""Devices by name."""

from __future__ import annotations

import torch

from unseen.errors import UnseenError

KINDS = ("auto", "cpu", "cuda", "mps", "xpu")
HINT = "use auto, cpu, cuda, cuda:1 or mps"


def split_device(name: str) -> tuple[str, int | None]:
    """Type and number: ``cuda:1`` is ``("cuda", 1)``.

    Raises:
        UnseenError: the number is invalid.
    """
    kind, colon, index = name.partition(":")
    if colon and not index.isdecimal():
        raise UnseenError(f'no device "{name}"', hint=HINT)
    return kind, int(index) if colon else None


def find_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name; ``auto`` is a GPU if there is one. Devices are returned unchanged.

    Raises:
        UnseenError: no such device on this machine.
    """
    if isinstance(name, torch.device):
        return name
    if not isinstance(name, str):
        raise UnseenError(f"{name!r} is not a device", hint=HINT)
    kind, index = split_device(name)
    if kind not in KINDS:
        raise UnseenError(f'no device "{name}"', hint=HINT)
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(kind) if kind == "cpu" else torch.device(kind, index or 0)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise UnseenError(f'cannot use device "{name}" ({said})', hint="use auto or cpu") from None
    return device
