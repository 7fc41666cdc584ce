"""Checks before the application: hosts, origins, sizes, the number of concurrent requests, and headers."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unseen.serve.settings import Refusal, Settings
from unseen.serve.worker import Worker, stopping

SAFE = ("GET", "HEAD", "OPTIONS")
JSON_LIMIT = 4 * 2**20
LONGEST = 500
"""Largest length of an error in characters."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
}
NO_STORE = {"Cache-Control": "no-store"}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@?#\[\]\\]+)(:[0-9]{1,5})?", re.IGNORECASE)


def problem(status: int, error: str, hint: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in the form of the API; what it quotes from a request may be long or not text."""
    lines = {
        key: "".join(c if c.isprintable() else "\ufffd" for c in text)
        for key, text in (("error", error), ("hint", hint))
    }
    return JSONResponse({k: v if len(v) <= LONGEST else f"{v[:LONGEST]}..." for k, v in lines.items()}, status, headers)


class _NotRead(BaseException):
    """A client that does not read its answer; not an ``Exception``, so that no handler tries to answer it."""


class Guard:
    """ASGI middleware.

    It answers to known hosts only, so that no foreign name can point to this machine. Requests that change or cost
    something are accepted only from its own page or from programs. Bodies are counted while they are read. A request
    beyond the worker's places is rejected before its body is read, so memory is bounded by places times size. The
    arrival of a body and every part of an answer have a deadline, so a slow client frees its place.

    Args:
        app: application to protect.
        worker: worker whose places it assigns.
        settings: limits of the server.
    """

    def __init__(self, app: ASGIApp, worker: Worker, settings: Settings) -> None:
        self.app, self.worker, self.settings = app, worker, settings
        self.hosts = {"localhost", socket.gethostname().lower(), *(h.lower() for h in settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                for name, value in NO_STORE.items():
                    headers.setdefault(name, value)
            try:  # a client that does not read frees its place
                await asyncio.wait_for(send(message), self.settings.read_seconds)
            except TimeoutError:
                raise _NotRead from None

        headers = Headers(scope=scope)
        safe = scope["method"] in SAFE
        limit = self._limit(headers)
        try:
            self._check(headers, safe, limit)
            if safe:
                await self.app(scope, receive, secured)
                return
            with self.worker.place():
                await self.app(scope, self._counted(receive, limit), secured)
        except _NotRead:  # uvicorn closes a connection with an incomplete answer
            return
        except Refusal as refusal:
            if not self.worker.stopping.is_set():
                await self._drain(headers, receive)
            answer = problem(refusal.status_code, refusal.detail, refusal.hint, dict(refusal.headers or {}))
            await answer(scope, receive, secured)

    def _limit(self, headers: Headers) -> int:
        form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        return self.settings.max_upload if form else min(self.settings.max_upload, JSON_LIMIT)

    def _check(self, headers: Headers, safe: bool, limit: int) -> None:
        host = headers.get("host", "")
        if not self._known(host):
            problem = f'this server does not accept the host "{host[:100]}"'
            raise Refusal(421, problem, "start it with --allow-host NAME")
        if safe:
            return
        origin = headers.get("origin")
        if origin is not None:
            if not self._own(origin, host):
                raise Refusal(403, f'a page of "{origin[:100]}" may not use this server', "use this server's own page")
        elif headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refusal(403, "a page of another site may not use this server", "use this server's own page")
        length = headers.get("content-length")
        if length is not None and "transfer-encoding" in headers:  # a proxy may have used the other one
            raise Refusal(
                400,
                "both Content-Length and Transfer-Encoding in one request",
                "send only Content-Length",
                {"Connection": "close"},
            )
        if length is not None and (not length.isdecimal() or int(length) > limit):
            raise _too_large(limit)

    def _own(self, origin: str, host: str) -> bool:
        try:
            found = urlsplit(origin)
            return found.netloc.lower() == host.lower() or (found.hostname or "") in self.settings.hosts
        except ValueError:
            return False

    def _known(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].lower().strip("[]")
        if name in self.hosts:
            return True
        try:  # an address is not a name, so no DNS entry led here
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _counted(self, receive: Receive, limit: int) -> Receive:
        count, reading = 0, True
        loop = asyncio.get_running_loop()
        end = loop.time() + self.settings.read_seconds

        async def counted() -> Message:
            nonlocal count, reading
            if not reading:
                return await receive()
            message = await self._received(receive, max(end - loop.time(), 0))
            count += len(message.get("body", b""))
            if count > limit:
                raise _too_large(limit)
            reading = bool(message.get("more_body", False))
            return message

        return counted

    async def _received(self, receive: Receive, seconds: float) -> Message:
        """The next part of a body, unless the server is stopping."""
        part, stop = asyncio.ensure_future(receive()), asyncio.ensure_future(self.worker.stopping.wait())
        try:
            await asyncio.wait((part, stop), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if part.done():
                return part.result()
        finally:
            part.cancel()
            stop.cancel()
        if self.worker.stopping.is_set():
            raise stopping()
        raise Refusal(408, "the request did not arrive in time", "send it again", {"Connection": "close"})

    async def _drain(self, headers: Headers, receive: Receive) -> None:
        """Read and drop what a rejected client still sends, within limits: many clients listen only after sending."""
        length, most = headers.get("content-length", "1"), 4 * self.settings.max_upload
        if not length.isdecimal() or int(length) > most or "expect" in headers:  # who expects waits for the answer
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(min(5.0, self.settings.read_seconds)):
                while most > 0 and (message := await receive()).get("more_body", False):
                    most -= len(message["body"])


def _too_large(limit: int) -> Refusal:
    return Refusal(
        413, f"more than {limit / 2**20:.3g} MB in one request", "send less per request", {"Connection": "close"}
    )
