"""The web server under load and under attack: answers, limits, traces left behind, and how it stops."""

# ruff: noqa: E501 - a request a line

from __future__ import annotations

import argparse
import asyncio
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from faults.campaign import Outcome, Report

QUEUE = 64
CONNECTIONS = 800
"""Settings of the server."""
GROWTH_MB = 32
"""Allowed growth of the server's memory between 1,000 requests and 10,000."""
HEADERS = (
    *("content-security-policy", "x-content-type-options", "x-frame-options", "referrer-policy", "cache-control"),
    *("cross-origin-opener-policy", "cross-origin-resource-policy", "permissions-policy"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, help="a finished run; default a small one on fieldguide, trained here")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--burst", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)


class Server:
    """`unseen serve` on a copy of a run, with its own working and temporary folder."""

    def __init__(self, run: Path, folder: Path) -> None:
        self.folder, self.log = folder, folder.with_name(f"{folder.name}.log")
        self.run = run
        for name in ("cwd", "tmp"):
            (folder / name).mkdir(parents=True)
        command = [sys.executable, "-m", "unseen", "serve", str(run.resolve())]
        command += ["--port", "18000", "--threads", "1", "--queue", str(QUEUE)]
        paths = os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)
        env = os.environ | {"TMPDIR": str(folder / "tmp"), "COLUMNS": "300", "PYTHONPATH": paths}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder / "cwd", env=env)
        while "Ctrl-C" not in self.log.read_text():
            if self.process.poll() is not None:
                raise SystemExit(self.log.read_text())
            time.sleep(0.1)
        self.url = next(w for w in self.log.read_text().split() if w.startswith("http")).rstrip("/")
        self.port = int(self.url.rsplit(":", 1)[1])
        self.memory = psutil.Process(self.process.pid)

    def megabytes(self) -> float:
        """Current resident memory."""
        return self.memory.memory_info().rss / 2**20

    def peak(self) -> float:
        """Peak resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def written(self) -> int:
        """Bytes written with write(2), which is for files and pipes; sockets use send."""
        counters = Path(f"/proc/{self.process.pid}/io").read_text()
        return int(re.search(r"wchar: (\d+)", counters)[1])  # type: ignore[index]

    def files(self) -> set[str]:
        """Open files, including deleted ones, without libraries and sockets."""
        found = set()
        with suppress(OSError):
            for entry in os.scandir(f"/proc/{self.process.pid}/fd"):
                with suppress(OSError):
                    target = str(Path(entry.path).readlink())
                    if target.startswith("/") and not target.startswith(("/dev/", "/proc/")):
                        found.add(target)
        return found

    def left(self) -> dict[str, tuple[int, int]]:
        """Every file where the server might leave one, with size and modification time."""
        paths = [p for top in (self.folder, self.run) for p in top.rglob("*") if p.is_file()]
        return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in paths}


class Account:
    """Named checks, counted and displayed."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.failures: list[str] = []

    def check(self, what: str, found: object, holds: bool, limit: str = "") -> None:
        """Record a value, and whether it is as expected."""
        self.rows.append({"what": what, "found": str(found), "limit": limit, "held": "yes" if holds else "NO"})
        if not holds:
            self.failures.append(f"load: {what}: {found}" + (f", should be {limit}" if limit else ""))


def trained(folder: Path) -> Path:
    """A small run on the drawn dataset: a minute."""
    command = [sys.executable, "-m", "unseen", "train", "fieldguide", "--method", "eszsl", "--output", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def images(rng: Random) -> tuple[bytes, bytes]:
    """A small image, and one of more than a megabyte."""

    def png(side: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(np.frombuffer(rng.randbytes(side * side * 3), np.uint8).reshape(side, side, 3)).save(
            buffer, "PNG"
        )
        return buffer.getvalue()

    return png(96), png(800)


Ask = Callable[[httpx.AsyncClient], Any]


def mixed(
    rng: Random, small: bytes, large: bytes, about: dict[str, Any], names: list[str]
) -> tuple[str, Ask, set[int]]:
    """A request to any route, valid or hostile, and its allowed statuses."""
    first, second = rng.sample(names, 2)
    k = len(about["attributes"])
    look = {"attribute_scores": [rng.gauss(0, 1) for _ in range(k)], "query": None}
    new = f"bird {rng.random()}"
    asks: list[tuple[str, Ask, set[int]]] = [
        ("predict", lambda c: c.post("/api/predict", files={"images": ("a.png", small)}), {200}),
        ("predict, 1.9 MB", lambda c: c.post("/api/predict", files={"images": ("a.png", large)}), {200}),
        ("explain", lambda c: c.post("/api/explain", files={"image": ("a.png", small)}), {200}),
        ("rank", lambda c: c.post("/api/rank", json={"look": look}), {200, 422}),
        ("separate", lambda c: c.get("/api/separate", params={"first": first, "second": second}), {200}),
        ("about", lambda c: c.get("/api/about"), {200}),
        ("page", lambda c: c.get(rng.choice(["/", "/page/start.js", "/style.css", "/healthz", "/api/classes"])), {200}),
        ("class added", lambda c: _added_and_removed(c, new, first), {200}),
        ("broken image", lambda c: c.post("/api/explain", files={"image": ("a.png", small[: rng.randrange(999)])}), {415, 422}),
        ("foreign page", lambda c: c.post("/api/classes", json={"name": new}, headers={"Origin": "http://evil.example"}), {403}),
        ("foreign host", lambda c: c.get("/api/about", headers={"Host": "evil.example"}), {421}),
        ("path", lambda c: c.get(rng.choice(["/..%2f..%2fetc/passwd", "/%2e%2e/app.py", "/static/page/start.js", "//etc/passwd", "/..%5cx"])), {404}),
        ("NaN", lambda c: c.post("/api/classes", content=b'{"name": "x", "values": {"a": NaN}}', headers={"Content-Type": "application/json"}), {422}),
        ("deep JSON", lambda c: c.post("/api/rank", content=b"[" * 50_000, headers={"Content-Type": "application/json"}), {400, 422}),
        ("other method", lambda c: c.request(rng.choice(["PUT", "TRACE", "FOO"]), "/api/predict"), {405}),
        ("no form", lambda c: c.post("/api/predict", content=b"x", headers={"Content-Type": "multipart/form-data"}), {400}),
    ]  # fmt: skip
    return rng.choice(asks)


async def _added_and_removed(client: httpx.AsyncClient, name: str, like: str) -> httpx.Response:
    await client.post("/api/classes", json={"name": name, "like": like})
    return await client.delete(f"/api/classes/{name}")


async def many(server: Server, count: int, rng: Random, account: Account, report: Report) -> list[dict[str, Any]]:
    """Requests to all routes, eight at a time; memory at 1,000, halfway and at the end."""
    small, large = images(rng)
    at = {min(1000, count // 10), count // 2, count}
    memory, kinds, wrong, bare = [], Counter[str](), Counter[str](), Counter[str]()
    begun, done, opened = time.monotonic(), 0, set[str]()
    before, open_before = server.written(), server.files()
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        about = (await client.get("/api/about")).json()
        names = [c["name"] for c in (await client.get("/api/classes")).json()["classes"]]
        while done < count:
            chosen = [
                mixed(rng, small, large, about, names) for _ in range(min(8, min(m for m in at if m > done) - done))
            ]
            answers = await asyncio.gather(*(ask(client) for _, ask, _ in chosen))
            for (kind, _, statuses), answer in zip(chosen, answers, strict=True):
                kinds[kind] += 1
                if answer.status_code not in statuses:
                    wrong[f"{kind}: {answer.status_code} {answer.text[:80]}"] += 1
                bare.update(h for h in HEADERS if h not in answer.headers)
            done += len(chosen)
            if done % 40 == 0:
                opened |= server.files() - open_before
            if done in at:
                memory.append({"requests": done, "server MB": round(server.megabytes())})
                report(f"{done} requests in {time.monotonic() - begun:.0f} s, {memory[-1]['server MB']} MB")
        after = [c["name"] for c in (await client.get("/api/classes")).json()["classes"]]
    account.check(f"{count} requests of {len(kinds)} sorts: unexpected answers", sum(wrong.values()), not wrong, "0")
    account.failures += [f"load: {n} times {what}" for what, n in wrong.most_common(5)]
    account.check("answers that lack a security header", sum(bare.values()), not bare, "0")
    growth = memory[-1]["server MB"] - memory[0]["server MB"]
    account.check("memory grown after the first tenth, MB", growth, growth <= GROWTH_MB, f"{GROWTH_MB} at most")
    account.check("classes afterwards", "the same" if after == names else "others", after == names, "the same")
    account.check("bytes written to files", server.written() - before, server.written() == before, "0")
    account.check("files opened meanwhile", len(opened), not opened, "0")
    return memory


async def burst(server: Server, count: int, account: Account) -> None:
    """Many concurrent requests; those beyond the places are told to come later."""
    _, large = images(Random(1))
    before = server.written()
    async with httpx.AsyncClient(
        base_url=server.url, timeout=120, limits=httpx.Limits(max_connections=count)
    ) as client:
        asked = [client.post("/api/predict", files={"images": ("a.png", large)}) for _ in range(count)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
    statuses = Counter(a.status_code if isinstance(a, httpx.Response) else type(a).__name__ for a in answers)
    refused = [a for a in answers if isinstance(a, httpx.Response) and a.status_code == 429]
    account.check(
        f"{count} predictions at one time",
        dict(statuses),
        set(statuses) <= {200, 429} and statuses[200] >= QUEUE,
        "200 or 429",
    )
    account.check(
        "refusals with Retry-After and a line",
        len(refused),
        all(a.headers["retry-after"].isdigit() and a.json()["hint"] for a in refused),
        "all",
    )
    account.check("places taken afterwards", busy := httpx.get(f"{server.url}/healthz").json()["busy"], busy == 0, "0")
    account.check("bytes written to files in the burst", server.written() - before, server.written() == before, "0")
    async with httpx.AsyncClient(
        base_url=server.url, timeout=120, limits=httpx.Limits(max_connections=count)
    ) as client:
        first, second = [c["name"] for c in (await client.get("/api/classes")).json()["classes"]][:2]
        told = await asyncio.gather(
            *(client.get("/api/separate", params={"first": first, "second": second}) for _ in range(count))
        )
    statuses = Counter(a.status_code for a in told)
    account.check(
        f"{count} questions to the model by GET at one time", dict(statuses), set(statuses) <= {200, 429}, "200 or 429"
    )


def sizes(server: Server, account: Account) -> None:
    """Bodies beyond the limits, with or without a stated length."""
    big = bytes(21 * 2**20)
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    head = b"--b\r\nContent-Disposition: form-data; name=images; filename=a\r\n\r\n"
    with httpx.Client(base_url=server.url, timeout=60) as client:
        column = client.get("/api/about").json()["attributes"][0]["name"].encode()
        said = client.post("/api/predict", content=head + big, headers=kind).status_code
        unsaid = client.post("/api/predict", content=(head, *[bytes(2**16)] * 340), headers=kind).status_code
        table = client.post(
            "/api/classes", content=b"class\n" + b"x\n" * 2**21 + b"\n", headers={"Content-Type": "text/csv"}
        ).status_code
        rows = client.post(
            "/api/classes",
            content=b"class,%s\n" % column + b"\n".join(b"x%d,1" % i for i in range(2000)),
            headers={"Content-Type": "text/csv"},
        )
    account.check("21 MB with Content-Length", said, said == 413, "413")
    account.check("21 MB in chunks", unsaid, unsaid == 413, "413")
    account.check("a table of 4 MB", table, table == 413, "413")
    account.check("a table of 2,000 classes", rows.status_code, rows.status_code == 413, "413")


def slow(server: Server, account: Account) -> None:
    """Clients that send nothing, a byte per second, half a body, or never read; and other clients meanwhile."""
    _, large = images(Random(2))
    starts = [
        b"",
        b"GET / HTTP/1.1\r\nX: ",
        b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n--b",
    ]
    held: list[socket.socket] = []
    try:
        for i in range(CONNECTIONS - 100):
            wire = socket.create_connection(("127.0.0.1", server.port))
            held.append(wire)
            with suppress(OSError):
                wire.sendall(starts[2] if i < QUEUE // 2 else starts[i % 2])
        for _ in range(20):
            wire = socket.socket()
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.connect(("127.0.0.1", server.port))
            held.append(wire)
            wire.sendall(b"GET /api/about HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 50)
        begun = time.monotonic()
        sent = {"images": ("a", large)}
        statuses = Counter(
            httpx.post(f"{server.url}/api/predict", files=sent, timeout=20).status_code for _ in range(20)
        )
        seconds = (time.monotonic() - begun) / 20
        account.check(f"20 predictions beside {len(held)} slow clients", dict(statuses), set(statuses) == {200}, "200")
        account.check("seconds each", round(seconds, 2), seconds < 2, "2 at most")
        held.extend(socket.create_connection(("127.0.0.1", server.port)) for _ in range(200))
        time.sleep(1)
        full = httpx.get(f"{server.url}/healthz", timeout=20).status_code
        account.check(f"beside {len(held)} connections", full, full == 503, f"503, beyond {CONNECTIONS}")
        time.sleep(max(0, begun + 65 - time.monotonic()))
        half = sum(b" 408 " in answered(wire) for wire in held[: QUEUE // 2])
        account.check("half bodies that hear 408 after 60 s", half, half == QUEUE // 2, f"{QUEUE // 2}")
    finally:
        for wire in held:
            wire.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(server.memory.net_connections("tcp")) > 10:
        time.sleep(0.5)
    left = len(server.memory.net_connections("tcp"))
    account.check("connections left once they are gone", left, left <= 10, "10 at most")


def answered(wire: socket.socket) -> bytes:
    """What has arrived on a connection."""
    wire.settimeout(1)
    try:
        return wire.recv(4096)
    except OSError:
        return b""


def raw(server: Server, account: Account) -> None:
    """Not HTTP, or two requests in one."""
    inner = b"DELETE /api/classes/emu HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    json_head = b"POST /api/rank HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    sent = {
        "no HTTP": b"\x16\x03\x01\x02\x00\r\n\r\n",
        "300 KB of header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 300_000 + b"\r\n\r\n",
        "no host": b"GET / HTTP/1.1\r\n\r\n",
        "two hosts": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        "two lengths": json_head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
        "two different lengths": json_head + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n{}  " + inner,
        "web socket": b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    }
    for what, data in sent.items():
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as wire:
            wire.sendall(data)
            found = wire.recv(65_536).decode("latin-1")
        status, bare = found[9:12], [h for h in HEADERS if f"\r\n{h}:" not in found.lower()]
        plain = status == "400" and "content-type: text/plain" in found
        account.check(what, status, plain or (status in ("400", "421") and not bare), "400, or 421 with all headers")


async def stopped(server: Server, account: Account) -> None:
    """A signal while completely received requests wait."""
    small, _ = images(Random(3))
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        sent = [("images", (f"{i}", small)) for i in range(6)]
        asked = [asyncio.create_task(client.post("/api/predict", files=sent)) for _ in range(30)]
        while (await client.get("/healthz")).json()["busy"] < 30 and not any(a.done() for a in asked):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*asked, return_exceptions=True)
    status = await asyncio.to_thread(server.process.wait, 30)
    seconds = time.monotonic() - begun
    sound = Counter(a.status_code if isinstance(a, httpx.Response) else type(a).__name__ for a in answers)
    account.check("SIGTERM with 30 requests waiting: seconds to its end", round(seconds, 1), seconds < 10, "10 at most")
    held = status in (0, -signal.SIGTERM) and set(sound) <= {200, 503, "ConnectError"}
    account.check("its status and the answers", f"{status}, {dict(sound)}", held, "answered or refused")


def run(options: argparse.Namespace, report: Report) -> Outcome:
    account, rng = Account(), Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="unseen-load") as top:
        where = Path(top)
        model = options.run or trained(where / "run")
        server = Server(model, where / "server")
        try:
            before, log = server.left(), server.log.read_text()
            memory = asyncio.run(many(server, options.requests, rng, account, report))
            report("at one time, too large, slow, malformed")
            asyncio.run(burst(server, options.burst, account))
            sizes(server, account)
            slow(server, account)
            raw(server, account)
            account.check("memory at most, MB", round(server.peak()), server.peak() < 2048, "2048")
            asyncio.run(stopped(server, account))
            after = server.left()
            account.check("files made or changed", len(set(after.items()) ^ set(before.items())), after == before, "0")
            said = server.log.read_text()[len(log) :].replace("stopped", "").strip()
            account.check("lines in the log", len(said.splitlines()), not said, "0")
            if said:
                account.failures.append(f"load: log: {said[-600:]}")
        finally:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()
    return Outcome(
        {"The server under load": account.rows, "Its memory": memory}, account.failures, {"seed": options.seed}
    )
