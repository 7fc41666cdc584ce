"""The HTTP server: uvicorn with its own limits on connections; what one request may cost is the guard's."""

from __future__ import annotations

import socket
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from unseen.serve.settings import Settings

HEAD_BYTES = 64 * 1024
"""Of a request's first line and headers."""


class Server(uvicorn.Server):
    """A server that stops soon, whatever its clients do."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is being computed, refuse what waits for that."""
        cast(Any, self.config.app).state.worker.stop()
        await super().shutdown(sockets)


def configure(app: FastAPI, settings: Settings, **options: Any) -> uvicorn.Config:
    """How uvicorn serves an application of :func:`unseen.serve.app.create_app`.

    Args:
        app: the application.
        settings: its limits.
        options: more of uvicorn's.
    """
    fixed: dict[str, Any] = {
        "http": "h11",  # which bounds a request's head
        "ws": "none",
        "proxy_headers": False,
        "log_level": "error",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 5,
        "timeout_keep_alive": settings.idle_seconds,
        "limit_concurrency": settings.connections,
        "h11_max_incomplete_event_size": HEAD_BYTES,
    }
    return uvicorn.Config(app, **fixed | options)
