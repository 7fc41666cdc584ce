"""Raw requests to the web server: malformed, hostile, incomplete; and the state of the server afterwards."""

# ruff: noqa: E501 - bytes as they are sent

from __future__ import annotations

import asyncio
import json
import logging
from random import Random
from typing import Any

import h11

from faults.fuzz.images import RECIPES, drawn, encoded
from faults.fuzz.model import ATTRIBUTES, CLASSES, small_recognizer
from faults.fuzz.mutate import spoil
from faults.fuzz.target import Case, Target, WrongResultError

HOST = "127.0.0.1:8000"
PATHS = (
    *(
        "/",
        "/page/start.js",
        "/style.css",
        "/healthz",
        "/api/about",
        "/api/classes",
        "/api/classes/emu",
        "/api/openapi.json",
    ),
    *(
        "/api/predict",
        "/api/explain",
        "/api/rank",
        "/api/separate?first=emu&second=gull",
        "/docs",
        "/api/classes/b%2Fc",
    ),
)
STRANGE_PATHS = (
    *("/../pyproject.toml", "/%2e%2e/%2e%2e/etc/passwd", "/%252e%252e/etc/passwd", "/..%5c..%5cx", "//etc/passwd", "/\\..\\x"),
    *("/static/page/start.js", "/page/start.js/../../app.py", "/api/classes/..", "/api/classes/%2e%2e%2fclasses.csv", "/api/classes/%00"),
    *("/api/classes/%ff%fe", "/api/classes/%ED%A0%80", "/api/classes/" + "x" * 5000, "/api/classes/<script>alert(1)</script>"),
    *("/api/classes/'%20OR%201=1--", "http://evil.example/", "*", "/" + "a/" * 3000, "/%", "/%zz", "/?" + "a=b&" * 3000, "/;x", "/ "),
    *("/api/separate", "/api/separate?first=%ED%A0%80&second=emu", "/api/separate?first=emu&first=b&second=gull", "/healthz/"),
    *("/api/separate?first=" + "y" * 9000 + "&second=emu", "/api/classes/emu%0d%0aX-Injected:%201", "/HEALTHZ", "/api//classes"),
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "FOO", "get", "G E T", "")
TEXTS = (
    *("emu", "gull", "b/c", "", " ", ".", "..", "\0", "a\nb", "\ud800", "\u202egnp", "\x1b[31m", "x" * 201, "x" * 300_000, "🐦", "e\u0301"),
    *("<script>alert(1)</script>", "'; DROP TABLE classes; --", "../../etc/passwd", "=1+1", "{{7*7}}", "${jndi:ldap://x}", "\ufeff"),
    *("__proto__", "constructor", "%s%s%n", "null", "\u2028", "[bold]", "NaN", "café"),
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0,
    1,
    -1,
    0.5,
    1e300,
    -1e300,
    1e-320,
    10**400,
    2**63,
    float("nan"),
    float("inf"),
    True,
    None,
    "1",
    [],
    {},
    1e12,
)
HEADERS = (
    *(b"Host: evil.example", b"Host: ", b"Host: [", b"Host: 127.0.0.1:8000, evil", b"Host: evil@127.0.0.1", b"Host: 127.0.0.1/x"),
    *(b"Origin: http://evil.example", b"Origin: http://[", b"Origin: null", b"Origin: \xff", b"Sec-Fetch-Site: cross-site"),
    *(b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length: 1, 1", b"Content-Length: +3"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding : chunked"),
    *(b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13", b"Upgrade: h2c\r\nConnection: Upgrade"),
    *(b"Expect: 100-continue", b"Expect: 200-ok", b"X-HTTP-Method-Override: DELETE", b"X-Forwarded-Host: evil.example", b"Range: bytes=0-1,0-1"),
    *(b"X: " + b"y" * 70_000, b"\r\n".join(b"A%d: b" % i for i in range(3000)), b"No colon here", b": empty", b"A\0: b", b" folded: x", b"Cookie: a=\xff"),
    *(b"Content-Encoding: gzip", b"Accept: application/xml", b"If-None-Match: *", b"Connection: close", b"Forwarded: for=x;host=evil.example"),
)  # fmt: skip
KINDS = (
    *("application/json", "text/plain", "text/csv", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded", ""),
    *("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 300, "application/xml"),
    *("multipart/form-data; boundary=b; charset=unicode_escape", "multipart/form-data; boundary=b; charset=undefined"),
    *("multipart/form-data; boundary=b; charset=zlib", "multipart/mixed; boundary=b", "APPLICATION/JSON; charset=utf-16"),
    *("text/tab-separated-values", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "application/json; x=\xff"),
)  # fmt: skip


def request(method: str, path: str, body: bytes, kind: str, headers: list[bytes], length: bool = True) -> bytes:
    lines = [f"{method} {path} HTTP/1.1".encode("utf-8", "surrogatepass")]
    if not any(h.lower().startswith(b"host") for h in headers):
        lines.append(f"Host: {HOST}".encode())
    if kind:
        lines.append(b"Content-Type: " + kind.encode("latin-1"))
    if length and (body or method in ("POST", "PATCH", "PUT")):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, *headers]) + b"\r\n\r\n" + body


def anything(rng: Random, depth: int = 0) -> Any:
    pick = rng.random()
    if depth > 3 or pick < 0.3:
        return rng.choice(NUMBERS)
    if pick < 0.6:
        return rng.choice(TEXTS)
    if pick < 0.8:
        return [anything(rng, depth + 1) for _ in range(rng.randint(0, 6))]
    return {rng.choice(TEXTS): anything(rng, depth + 1) for _ in range(rng.randint(0, 4))}


def json_body(rng: Random) -> tuple[str, str, bytes]:
    """A body for a path that takes JSON, with errors in it."""
    values: Any = {
        rng.choice([*ATTRIBUTES, *TEXTS]): rng.choice([*NUMBERS, 0.3, 0.7]) for _ in range(rng.randint(0, 4))
    }
    name = rng.choice([*TEXTS, f"bird {rng.random()}"])
    scores = [rng.choice([0.1, -0.2, 1.5, *NUMBERS]) if rng.random() < 0.4 else rng.random() for _ in range(5)]
    made: dict[str, tuple[str, Any]] = {
        "/api/classes": ("POST", {"name": name, "like": rng.choice([None, "emu", *TEXTS]), "values": values}),
        "/api/classes/emu": ("PATCH", {"name": rng.choice([None, name]), "values": values}),
        "/api/classes/gull": ("DELETE", {}),
        "/api/rank": (
            "POST",
            {
                "look": {"attribute_scores": scores, "query": rng.choice([None, scores, [0.1] * rng.randint(0, 9)])},
                "corrections": values,
                "target": rng.choice([None, *CLASSES, *TEXTS]),
                "rival": rng.choice([None, *CLASSES, *TEXTS]),
                "top": rng.choice([1, 5, 1000, *NUMBERS]),
                "only": rng.choice([[], ["emu"], ["emu", "gull"], [rng.choice(TEXTS)], ["emu"] * 3000]),
            },
        ),
    }
    path = rng.choice(list(made))
    method, body = made[path]
    for key in list(body):
        if rng.random() < 0.15:
            body[key] = anything(rng)
        elif rng.random() < 0.05:
            del body[key]
    data = json.dumps(body, ensure_ascii=rng.random() < 0.8).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        data = rng.choice(
            [b"[" * 100_000, b'{"a":' * 50_000, b"", b"null", b"\xff\xfe{}", data[:-1], data * 2, b"1" * 5000, b"{}" + bytes(9)]
        )  # fmt: skip
    return method, path, data


def multipart(rng: Random) -> bytes:
    """A form as browsers send it, more or less."""
    parts = []
    for _ in range(rng.choice([0, 1, 1, 2, 5, 70, 1100])):
        field = rng.choice(["images", "image", "image", "images", "top", "among", "only", "target", "preview", "\xff"])
        disposition = f'Content-Disposition: form-data; name="{field}"'
        body: bytes = rng.choice(TEXTS).encode("utf-8", "surrogatepass")[:6000]
        if field.startswith("image") and rng.random() < 0.9:
            name = rng.choice(["a.png", "../../x.png", "C:\\x.png", 'a\\"b.png', "%00.png", "", "x" * 3000, "\xe4.png"])
            disposition += f'; filename="{name}"'
            body = rng.choice(RECIPES)(rng) if rng.random() < 0.3 else encoded(drawn(rng), "PNG")
            body = body[:300_000]
        lines = [disposition.encode("latin-1")]
        if rng.random() < 0.2:
            lines.append(
                rng.choice(
                    [
                        b"X: " + b"y" * 9000,
                        b"Content-Type: image/png",
                        b"no colon",
                        b"A: b\r\n" * 20 + b"A: b",
                        b"\0: x",
                    ]
                )
            )
        parts.append(b"--b\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body + b"\r\n")
        if len(parts) > 50:
            parts = parts[:1] * rng.choice([60, 70, 1100])
            break
    end = rng.choice([b"--b--\r\n"] * 4 + [b"--b--", b"", b"--b\r\n", b"--c--\r\n", b"--b--\r\n" + b"\r" * 50_000])
    return rng.choice([b""] * 5 + [b"preamble\r\n", b"\r\n" * 5000]) + b"".join(parts) + end


def chunked(body: bytes, rng: Random) -> bytes:
    """A chunked body, with some wrong chunk sizes."""
    size = max(1, len(body) // rng.choice([1, 2, 7]))
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    out = b"".join(b"%x%s\r\n%s\r\n" % (len(p), rng.choice([b""] * 6 + [b";a=b", b" ", b"g"]), p) for p in pieces)
    return out + rng.choice([b"0\r\n\r\n"] * 4 + [b"0\r\nX: y\r\n\r\n", b"", b"-1\r\n\r\n", b"ffffffffffffffff\r\n"])


def one(rng: Random) -> tuple[str, bytes]:
    """A request and its description."""
    kind = rng.choice(
        ["path", "path", "json", "json", "json", "form", "form", "table", "method", "garbage", "smuggled"]
    )
    headers = [rng.choice(HEADERS) for _ in range(rng.choice([0, 0, 0, 1, 1, 2]))]
    if kind == "path":
        data = request(rng.choice(METHODS[:7]), rng.choice([*PATHS, *STRANGE_PATHS, *STRANGE_PATHS]), b"", "", headers)
    elif kind == "json":
        method, path, body = json_body(rng)
        data = request(method, path, body, "application/json" if rng.random() < 0.8 else rng.choice(KINDS), headers)
    elif kind == "form":
        body = multipart(rng)
        sent = "multipart/form-data; boundary=b" if rng.random() < 0.8 else rng.choice(KINDS)
        path = rng.choice(["/api/predict", "/api/explain", "/api/predict", "/api/classes"])
        if rng.random() < 0.3:
            data = request(
                "POST", path, chunked(body, rng), sent, [*headers, b"Transfer-Encoding: chunked"], length=False
            )
        else:
            data = request("POST", path, body, sent, headers)
    elif kind == "table":
        cells = [
            ",".join([rng.choice(TEXTS)[:300], *(str(rng.choice(NUMBERS))[:50] for _ in ATTRIBUTES)])
            for _ in range(rng.choice([1, 3, 1500]))
        ]
        body = "\n".join(["class," + ",".join(ATTRIBUTES), *cells]).encode("utf-8", "surrogatepass")
        body = spoil(body, rng)[0] if rng.random() < 0.4 else body
        data = request("POST", "/api/classes", body, rng.choice(["text/csv", KINDS[-3], KINDS[-2]]), headers)
    elif kind == "method":
        data = request(
            rng.choice(METHODS), rng.choice(PATHS), rng.choice([b"", b"{}", b"x" * 1000]), rng.choice(KINDS), headers
        )
    elif kind == "smuggled":
        inner = request("DELETE", "/api/classes/gull", b"", "", [])
        data = rng.choice(
            [
                request("POST", "/api/rank", b"0\r\n\r\n" + inner, "application/json", [b"Transfer-Encoding: chunked", b"Content-Length: 3"], length=False),
                request("POST", "/api/rank", b"0\r\n\r\n" + inner, "application/json", [b"Transfer-Encoding: chunked"], length=True),
                request("POST", "/api/rank", b"{}" + inner, "application/json", [b"Content-Length: 2", b"Content-Length: 2"], length=False),
                b"GET / HTTP/1.1\nHost: 127.0.0.1\n\n" + inner,
                b"GET / HTTP/0.9\r\n\r\n", b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\r\n\r\n" + request("GET", "/healthz", b"", "", []) * 20, b"GET /\r\n\r\n", b"GET  /  HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            ]
        )  # fmt: skip
    else:
        data = rng.choice(
            [
                rng.randbytes(rng.choice([1, 100, 3000])),
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                b"GET",
                b"\0" * 70_000,
                b"A" * 70_000,
            ]
        )
    return kind, data


class _Transport(asyncio.Transport):
    """The other end of a connection, in memory."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 8000)})
        self.sent, self.closed = bytearray(), False

    def write(self, data: Any) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class Requests(Target):
    """A connection with one or several requests, in pieces; then a valid one, and a check of the classes."""

    name = "requests"
    weight = 2.0
    seconds = 15.0
    megabytes = 700.0

    def warm(self, folder: Any) -> None:
        """Load the model and the server."""
        self.recognizer = small_recognizer()
        import unseen.serve.app
        import unseen.serve.server  # noqa: F401

        rng = Random(0)
        self.sound = encoded(drawn(rng), "PNG")

    def make(self, rng: Random, folder: Any) -> Case:
        """Make the bytes, and where they are split."""
        made = [one(rng) for _ in range(rng.choice([1, 1, 1, 2, 4]))]
        data = b"".join(d for _, d in made)
        if rng.random() < 0.1:
            data = spoil(data, rng)[0]
        if rng.random() < 0.1:
            data = data[: rng.randrange(len(data) + 1)]
        size = rng.choice([len(data) + 1, 1000, 17]) if len(data) < 20_000 else rng.choice([len(data), 65_536])
        first = data[:60].decode("latin-1")
        return Case(f"{'+'.join(k for k, _ in made)} {first!a}", data=(data, size))

    def run(self, case: Case, folder: Any) -> None:
        """Send it, check every answer, and send a valid request."""
        asyncio.run(self._run(*case.data))

    async def _run(self, data: bytes, size: int) -> None:
        from uvicorn.server import ServerState

        from unseen.serve.app import create_app
        from unseen.serve.server import configure
        from unseen.serve.settings import Settings

        settings = Settings()
        app = create_app(self.recognizer, settings)
        config = configure(app, settings, log_config=None)
        config.load()
        state, errors = ServerState(), _Errors()
        logging.getLogger("uvicorn.error").addHandler(errors)
        logging.getLogger("asyncio").addHandler(errors)

        async def connection(sent: bytes, step: int) -> bytes:
            transport = _Transport()
            kind: Any = config.http_protocol_class
            protocol = kind(config, state, {})
            protocol.connection_made(transport)
            for i in range(0, len(sent), step):
                if transport.closed:
                    break
                try:
                    protocol.data_received(sent[i : i + step])
                except h11.LocalProtocolError:  # not HTTP during an answer: asyncio ends the connection
                    break
                if i % (20 * step) == 0:
                    await asyncio.sleep(0)
            while not transport.closed and state.tasks and (protocol.cycle.more_body is False or not _hungry(protocol)):
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.002)
            transport.closed = True
            protocol.connection_lost(None)
            while state.tasks:
                await asyncio.sleep(0.001)
            return bytes(transport.sent)

        answers = await connection(data, size)
        answers = answers.partition(NOT_HTTP)[0]
        if b"HEAD" not in data:  # its answers have a length and no body
            _check(answers)
        if errors.found:
            raise WrongResultError(errors.found[0])
        files = (
            b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
            + self.sound
            + b"\r\n--b--\r\n"
        )
        after = await connection(request("POST", "/api/predict", files, "multipart/form-data; boundary=b", []), 65_536)
        ((status, _, body),) = _check(after)
        found = json.loads(body)["predictions"][0]
        if status != 200 or not all(0 <= c["confidence"] <= 1 and c["score"] is not None for c in found["classes"]):
            raise WrongResultError(f"a sound request afterwards: {status} {found}")
        ((status, _, body),) = _check(await connection(request("GET", "/api/classes", b"", "", []), 65_536))
        if status != 200 or len(json.loads(body)["classes"]) < 2:
            raise WrongResultError(f"the classes afterwards: {status} {body[:200]!r}")


NOT_HTTP = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
"""Start of uvicorn's answer to what is not HTTP, its last on a connection."""


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)  # what `unseen serve` logs
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        self.found.append(f"logged: {record.getMessage()[:200].strip()} {cause!r}")


def _hungry(protocol: Any) -> bool:
    """Whether the current request waits for more of its body."""
    return protocol.cycle is not None and protocol.cycle.more_body and not protocol.cycle.body


def _check(sent: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Check the answers on a connection."""
    found: list[tuple[int, dict[bytes, bytes], bytes]] = []
    while sent:
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(sent)
        status, headers, body = 0, {}, b""
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Response):
                status, headers = event.status_code, dict(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif event is h11.NEED_DATA:
                return found  # to HEAD, or truncated
        sent = bytes(parser.trailing_data[0])
        for name in (
            b"content-security-policy",
            b"x-content-type-options",
            b"cache-control",
            b"referrer-policy",
            b"permissions-policy",
        ):
            if name not in headers:
                raise WrongResultError(f"no {name.decode()} with {status}")
        if status >= 500 and status != 503:
            raise WrongResultError(f"status {status}: {body[:300]!r}")
        if status >= 400:
            said = json.loads(body)
            if set(said) != {"error", "hint"} or not all(v.isprintable() and 0 < len(v) < 600 for v in said.values()):
                raise WrongResultError(f"status {status}: {body[:300]!r}")
        found.append((status, headers, body))
        if parser.our_state is h11.MUST_CLOSE or parser.their_state is not h11.DONE:
            break
    return found
