"""A connection: how long a client may take over it, how many there are, and what is no HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from unseen.serve.guard import HEADERS, NO_STORE
from unseen.serve.settings import Settings

HEAD_BYTES = 64 * 1024
"""Of a request's first line and headers."""


class Wire(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, which bounds neither the time for a request's head nor that for reading an answer.

    Attributes:
        settings: the server's limits; of a class made by :func:`wire`.
        waiting: connections that have no request under way, longest first.
    """

    settings: Settings
    waiting: dict[Wire, None]
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; at too many connections the one that waited longest without a request goes."""
        super().connection_made(transport)
        if len(self.connections) > self.settings.connections:
            oldest = next(iter(self.waiting), None)
            if oldest is None:
                self._answer(503, "too many connections", "try again later", {"Retry-After": "5"})
                return
            oldest._drop()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; the time for a head does not begin anew with every byte of it."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.flow.write_paused:  # one that asks on, but does not read, has its time
                self._stop_waiting()
        elif self not in self.waiting and not self.transport.is_closing():
            self._wait()

    def on_response_complete(self) -> None:
        """Wait for the next request, and for this answer to be taken."""
        self._within(self.settings.read_seconds)
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.waiting[self] = None
        elif not self.flow.write_paused:  # the next request was there already
            self._stop_waiting()

    def pause_writing(self) -> None:
        """The client does not read; a place and an answer are held meanwhile."""
        super().pause_writing()
        self._within(self.settings.read_seconds)

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        self._stop_waiting()
        if self.cycle is not None and self.cycle.response_complete:
            self._within(self.settings.read_seconds)

    def send_400_response(self, msg: str) -> None:
        """Answer as the API does, not in plain text."""
        self._answer(400, "not a well-formed HTTP request", "send HTTP/1.1 with headers of at most 64 KB")

    def stop(self) -> None:
        """End what depends on the client: a request half sent, an answer half read."""
        if self.flow.write_paused:
            self._drop()
        elif self.cycle is not None and self.cycle.more_body and not self.cycle.response_started:
            self._answer(503, "the server is being stopped", "try again later")

    def _wait(self) -> None:
        self.waiting[self] = None
        self._within(self.settings.head_seconds)

    def _stop_waiting(self) -> None:
        self.waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _within(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self._drop)

    def _drop(self) -> None:
        self._stop_waiting()
        self.transport.abort()

    def _answer(self, status: int, error: str, hint: str, more: dict[str, str] | None = None) -> None:
        body = json.dumps({"error": error, "hint": hint}).encode()
        headers: dict[str, Any] = HEADERS | NO_STORE | (more or {})
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
        if self.cycle is not None:  # what the application has yet to say of it is not sent
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        response = h11.Response(status_code=status, headers=list(headers.items()))
        try:
            events = (response, h11.Data(data=body), h11.EndOfMessage())
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        except h11.LocalProtocolError:  # an answer is under way
            self.transport.abort()
            return
        self.transport.close()
        self._within(self.settings.read_seconds)


class Server(uvicorn.Server):
    """A server that stops soon, whatever its clients do."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is being computed, refuse what waits for that."""
        cast(Any, self.config.app).state.worker.stop()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Wire):
                connection.stop()
        await super().shutdown(sockets)


def wire(settings: Settings) -> type[Wire]:
    """The protocol of one server: connections of another have their own account."""
    return type("Wire", (Wire,), {"settings": settings, "waiting": {}})
