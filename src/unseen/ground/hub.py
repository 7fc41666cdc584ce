"""Whether the model hub can be reached, found out in seconds and not in minutes."""

from __future__ import annotations

import functools
import os
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies

SECONDS = 4.0
"""How long the hub, or the proxy before it, may take to accept a connection."""


def look_for_hub() -> bool:
    """Put huggingface_hub offline where its server does not answer, so that it takes what is cached, or fails at once.

    Without this it repeats each request with pauses: over a minute of silence before the error.

    Returns:
        Whether the hub may be asked.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if not _answers(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
        return False
    return True


@functools.cache
def _answers(address: str) -> bool:
    """Whether a server, or the proxy on the way to it, accepts a connection in :data:`SECONDS`."""
    parts = urlsplit(address)
    proxy = getproxies().get(parts.scheme) or os.environ.get("ALL_PROXY")
    if proxy and parts.hostname not in ("localhost", "127.0.0.1"):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    found: list[bool] = []

    def connect() -> None:
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), SECONDS).close()
        except OSError:
            return
        found.append(True)

    thread = threading.Thread(target=connect, daemon=True)  # a look-up of names has no limit of its own
    thread.start()
    thread.join(SECONDS)
    return bool(found)
