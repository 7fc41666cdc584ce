"""The HTTP server: uvicorn with its own limits on connections; the guard limits single requests."""

from __future__ import annotations

import logging
import socket
from typing import Any, cast

import h11
import uvicorn
from fastapi import FastAPI

from unseen.serve.settings import Settings

HEAD_BYTES = 64 * 1024
"""Largest size in bytes of a request's first line and headers."""


class _NotHttp(logging.Filter):
    """Drops tracebacks about clients that broke HTTP before their answer was sent; uvicorn has sent them another."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.exc_info is None or not isinstance(record.exc_info[1], h11.LocalProtocolError)


NOT_HTTP = _NotHttp()


class Server(uvicorn.Server):
    """A server that stops soon, whatever its clients do."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the running computation, and reject waiting requests."""
        cast(Any, self.config.app).state.worker.stop()
        await super().shutdown(sockets)


def configure(app: FastAPI, settings: Settings, **options: Any) -> uvicorn.Config:
    """Uvicorn configuration for an application of :func:`unseen.serve.app.create_app`.

    Args:
        app: application to serve.
        settings: limits of the server.
        options: further options of uvicorn.
    """
    fixed: dict[str, Any] = {
        "http": "h11",  # bounds the head of a request
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
    logging.getLogger("uvicorn.error").addFilter(NOT_HTTP)
    return uvicorn.Config(app, **fixed | options)
