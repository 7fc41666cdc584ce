"""Find out in seconds, not minutes, whether the model hub can be reached."""

from __future__ import annotations

import functools
import os
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies

SECONDS = 4.0
"""Time limit in seconds for the hub, or a proxy, to accept a connection."""


def look_for_hub() -> bool:
    """Set huggingface_hub to offline mode if its server does not answer, so that it uses its cache or fails at once.

    Otherwise it repeats each request with pauses, with over a minute of silence before the error.

    Returns:
        Whether the hub can be used.
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
    """Whether a server, or the proxy to it, accepts a connection in :data:`SECONDS`."""
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

    thread = threading.Thread(target=connect, daemon=True)  # DNS look-ups have no time limit of their own
    thread.start()
    thread.join(SECONDS)
    return bool(found)
