"""What a server refuses: too much, too many, wrong content, foreign hosts and pages; and that it keeps nothing."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import struct
import tempfile
import threading
import zlib

import h11
import httpx
import numpy as np
import pytest
from PIL import Image

from deep_images import png_of_16_bits
from serve_tools import client_of, drawn, encoded, served
from unseen.ground.images import formats
from unseen.serve.server import configure
from unseen.serve.settings import Settings


def send(client, data, name="a.png", path="/api/predict", field="images"):
    return client.post(path, files={field: (name, data)})


def bomb(width: int, height: int) -> bytes:
    """A small PNG file whose header promises a large image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_000, 9000), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (2**30, 1)])
def test_a_bomb_is_refused_by_its_header(client, size, monkeypatch):
    Image.init()  # importing a plugin may load an image
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("a pixel was decoded"))
    answer = send(client, bomb(*size), path="/api/explain", field="image")
    assert answer.status_code == 413
    assert "pixels" in answer.json()["error"]
    assert answer.json()["hint"] == "save it with at most 50 million"


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"", 415), (b"no image", 415), (b"%PDF-1.4 ...", 415), (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415)],
)
def test_only_images_are_taken(client, data, status):
    answer = send(client, data, path="/api/explain", field="image")
    assert answer.status_code == status
    assert ("not an image" if data else "the file is empty") in answer.json()["error"]


def test_a_format_off_the_list_is_refused(client, image):
    for kind in ("EPS", "PDF", "ICO"):
        answer = send(client, encoded(image, kind), "a.png", "/api/explain", "image")
        assert answer.status_code == 415, kind
        assert answer.json()["hint"].startswith("send a JPEG, PNG")


def test_the_server_reads_what_everything_else_reads(client, image):
    for kind in sorted({"JPEG", "PNG", "TIFF", "PPM", "TGA", "AVIF", "JPEG2000", "HEIF"} & set(formats())):
        assert send(client, encoded(image, kind), "a", "/api/explain", "image").status_code == 200, kind


def test_sixteen_bit_colours_are_seen_as_in_a_file(client, recognizer, tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (40, 60, 3))
    (tmp_path / "a.png").write_bytes(png_of_16_bits(values))
    (found,) = client.post("/api/predict", files={"images": ("a.png", png_of_16_bits(values))}).json()["predictions"]
    (expected,) = recognizer.predict([tmp_path / "a.png"])
    assert found["classes"][0]["name"] == expected.best.name
    assert found["classes"][0]["score"] == pytest.approx(expected.best.score)


def test_a_broken_image_is_named(client, png):
    answer = send(client, png[:300], "bad.png", "/api/explain", "image")
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("bad.png: broken image")


def test_kinds_of_images(client, image):
    first = {"save_all": True, "append_images": [drawn(5)]}
    grey16 = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "jpeg": encoded(image, "JPEG"),
        "cmyk": encoded(image.convert("CMYK"), "JPEG"),
        "grey16": encoded(grey16, "PNG"),
        "palette": encoded(image.convert("P"), "PNG"),
        "transparent": encoded(image.convert("RGBA"), "PNG"),
        "gif": encoded(image, "GIF", **first),
        "webp": encoded(image, "WEBP", **first),
        "tiff": encoded(image, "TIFF", **first),
        "bmp": encoded(image, "BMP"),
    }
    for name, data in kinds.items():
        answer = send(client, data, name)
        assert answer.json()["predictions"][0]["error"] is None, name
    turned = send(client, encoded(image, "JPEG", exif=exif), path="/api/explain", field="image").json()
    assert (turned["width"], turned["height"]) == image.size[::-1]


def test_the_first_frame_counts(client, image):
    moving = encoded(image, "TIFF", save_all=True, append_images=[drawn(5)])
    found, expected = (send(client, data).json()["predictions"][0]["classes"] for data in (moving, encoded(image)))
    assert found == expected


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a.png", "a.png"),
        ("..", "image"),
        ("", None),
        ("a\x00b\n.png", "ab.png"),
        ("x" * 500, "x" * 200),
        ("<img src=x>.png", "<img src=x>.png"),
    ],
)
def test_a_name_is_a_name_only(sent, said):
    from unseen.serve.uploads import base_name

    assert base_name(sent) == (said or "image")


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/page/start.js",
        "/page/start.js/../../app.py",
        "/..%5c..%5cx",
        "//etc/passwd",
    ],
)
def test_no_path_leads_to_a_file(client, path):
    assert client.get(path).status_code == 404


def test_too_much_at_once(recognizer, png):
    with client_of(recognizer, max_upload=50_000) as client:
        answer = send(client, b"x" * 60_000)
        assert answer.status_code == 413
        assert set(answer.json()) == {"error", "hint"}

        def parts():  # without a length in the header
            yield b"--b\r\nContent-Disposition: form-data; name=images; filename=a\r\n\r\n"
            for _ in range(100):
                yield b"x" * 1000
            yield b"\r\n--b--\r\n"

        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        assert client.post("/api/predict", content=parts(), headers=kind).status_code == 413
        json = {"Content-Type": "application/json"}
        assert client.post("/api/rank", content=b" " * 60_000, headers=json).status_code == 413
        assert client.post("/api/classes", content=iter([b" " * 60_000]), headers=json).status_code == 413
        assert send(client, png).status_code == 200


def test_too_many_images_and_fields(recognizer, png):
    with client_of(recognizer, max_images=3) as client:
        files = [("images", (f"{i}.png", png)) for i in range(4)]
        assert len(client.post("/api/predict", files=files[:3]).json()["predictions"]) == 3
        answer = client.post("/api/predict", files=files)
        assert (answer.status_code, answer.json()["error"]) == (413, "more than 3 images")
        answer = client.post("/api/predict", files=files[:1], data={"only": ["emu"] * 1001})
        assert (answer.status_code, answer.json()["error"]) == (
            400,
            "Too many fields. Maximum number of fields is 1000",
        )
        answer = client.post("/api/predict", files=files[:1], data={"only": "x" * 5000})
        assert answer.status_code == 400


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=b", b"nonsense", 400),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\n1\r\n--b--\r\n',
            422,
        ),
    ],
)
def test_a_wrong_body(client, kind, body, status):
    answer = client.post("/api/predict", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "hint"}


def test_foreign_hosts_and_pages(recognizer, png):
    files = {"images": ("a.png", png)}
    with client_of(recognizer, hosts=("birds.example",)) as client:
        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "192.168.0.7", "birds.example"):
            assert client.get("/healthz", headers={"Host": host}).status_code == 200, host
        strange = ("[", "127.0.0.1/x", "evil@127.0.0.1", "127.0.0.1:8000, evil", "127.0.0.1\\evil")
        for host in (
            "evil.example",
            "localhost.evil.example",
            "birds.example.evil",
            "",
            "127.0.0.1.evil.example",
            *strange,
        ):
            assert client.get("/healthz", headers={"Host": host}).status_code == 421, host
        for origin, status in (
            ("http://localhost", 200),
            ("https://birds.example", 200),  # a proxy's own name
            ("http://localhost:3000", 403),
            ("http://evil.example", 403),
            ("http://192.168.0.9", 403),
            ("null", 403),
            ("http://[", 403),
        ):
            assert client.post("/api/predict", files=files, headers={"Origin": origin}).status_code == status, origin
        for where, status in (("same-origin", 200), ("none", 200), ("cross-site", 403), ("same-site", 403)):
            answer = client.post("/api/predict", files=files, headers={"Sec-Fetch-Site": where})
            assert answer.status_code == status
        plain = {"Content-Type": "text/plain"}
        assert client.post("/api/classes", content='{"name": "x", "like": "emu"}', headers=plain).status_code == 415
        assert client.post("/api/rank", content="{}", headers=plain).status_code == 422
        assert (
            "access-control-allow-origin" not in client.options("/api/classes", headers={"Origin": "http://x"}).headers
        )


def test_every_answer_has_the_headers(client, png):
    answers = [client.get(path) for path in ("/", "/page/start.js", "/style.css", "/healthz", "/api/about", "/nothing")]
    answers += [send(client, png), send(client, b""), client.get("/", headers={"Host": "evil.example"})]
    for answer in answers:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers
    again = client.get("/page/start.js", headers={"If-None-Match": client.get("/page/start.js").headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_nothing_is_written_to_disk(client, png, monkeypatch):
    rolled = []
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rolled.append)
    large = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(large, "PNG")
    assert len(large.getvalue()) > 2 * 2**20  # more than the form parser keeps in memory by itself
    assert send(client, large.getvalue()).json()["predictions"][0]["error"] is None
    assert not rolled


def test_a_full_queue_says_come_later(recognizer, png, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    predict = recognizer.predict

    def slow(*args, **options):
        begun.set()
        go_on.wait(20)
        return predict(*args, **options)

    monkeypatch.setattr(recognizer, "predict", slow)

    async def flood(url):
        async with httpx.AsyncClient(base_url=url, timeout=30, limits=httpx.Limits(max_connections=60)) as client:

            def one():
                return client.post("/api/predict", files={"images": ("a.png", png)})

            waiting = [asyncio.create_task(one()) for _ in range(40)]
            while not begun.is_set() or sum(t.done() for t in waiting) < 36:
                await asyncio.sleep(0.02)
            health = (await client.get("/healthz")).json()  # still answers at once
            go_on.set()
            return health, await asyncio.gather(*waiting), (await client.get("/healthz")).json()

    with served(recognizer, queue=4) as url:
        during, answers, after = asyncio.run(flood(url))
    assert during == {"status": "ok", "busy": 4, "places": 4}
    assert after["busy"] == 0
    assert sorted(a.status_code for a in answers) == [200] * 4 + [429] * 36
    refused = next(a for a in answers if a.status_code == 429)
    assert refused.json() == {"error": "4 requests are already waiting", "hint": "try again later"}
    assert int(refused.headers["retry-after"]) >= 1
    results = [a.json()["predictions"][0]["classes"] for a in answers if a.status_code == 200]
    assert all(r == results[0] for r in results)


def test_answers_do_not_mix(recognizer):
    images = [drawn(seed) for seed in range(12)]
    expected = [[vars(c) for c in p.candidates] for p in recognizer.predict(images, batch_size=1)]

    async def ask(url):
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:

            async def one(i):
                files = {"images": (f"{i}.png", encoded(images[i]))}
                if i % 3 == 0:  # among others that look at fewer classes
                    await client.post("/api/predict", files=files, data={"only": ["emu", "gull"]})
                return (await client.post("/api/predict", files=files)).json()["predictions"][0]

            return await asyncio.gather(*map(one, range(len(images))))

    with served(recognizer) as url:
        found = asyncio.run(ask(url))
    assert [p["image"] for p in found] == [f"{i}.png" for i in range(12)]
    assert [p["classes"] for p in found] == expected


def test_a_slow_sender_is_cut_off(recognizer):
    import socket

    with served(recognizer, read_seconds=0.3, queue=1) as url:
        port = int(url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as wire:
            head = "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            wire.sendall(f"{head}Content-Length: 1000\r\n\r\n--b".encode())
            wire.settimeout(10)
            assert b" 408 " in wire.recv(4096)
        assert httpx.get(f"{url}/healthz").json()["busy"] == 0


def test_a_large_upload_hears_why(recognizer):
    with served(recognizer, max_upload=1_000_000) as url:
        answer = httpx.post(f"{url}/api/predict", files={"images": ("a", bytes(3_000_000))})
    assert answer.status_code == 413
    assert answer.json()["error"] == "more than 0.954 MB in one request"


def wired(url):
    import socket

    wire = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])))
    wire.settimeout(10)
    return wire


def ends(wire) -> bool:
    """Whether the server ends a connection within the socket's timeout."""
    try:
        while wire.recv(65_536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def test_a_connection_that_asks_no_more_ends(recognizer):
    with served(recognizer, idle_seconds=1) as url, wired(url) as wire:
        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert wire.recv(12).startswith(b"HTTP/1.1 200")
        assert ends(wire)


def test_who_breaks_http_leaves_no_traceback(client):
    """Its connection has ended with uvicorn's own answer when ours is ready."""
    configure(client.app, Settings())
    log = logging.getLogger("uvicorn.error")
    kept = []
    for error in (h11.LocalProtocolError("state=MUST_CLOSE"), KeyError("ours")):
        record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "failed", (), (type(error), error, None))
        kept.append(bool(log.filter(record)))
    assert kept == [False, True]


def test_a_head_has_64_kb(recognizer):
    with served(recognizer) as url, wired(url) as wire, contextlib.suppress(ConnectionError):
        wire.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 100_000)
        assert wire.recv(12) == b"HTTP/1.1 400"
        assert ends(wire)


def test_so_many_connections_and_no_more(recognizer, png):
    with served(recognizer, connections=20) as url:
        with contextlib.ExitStack() as held:
            for _ in range(30):
                held.enter_context(wired(url))
            answer = httpx.get(f"{url}/healthz")
            while answer.status_code == 200:  # not all are accepted yet
                answer = httpx.get(f"{url}/healthz")
            assert answer.status_code == 503
            assert httpx.post(f"{url}/api/predict", files={"images": ("a", png)}).status_code == 503
        while httpx.get(f"{url}/healthz").status_code != 200:
            pass
        assert httpx.post(f"{url}/api/predict", files={"images": ("a", png)}).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_does_not_read_gives_the_place_back(method):
    from unseen.serve.guard import Guard
    from unseen.serve.settings import Settings
    from unseen.serve.worker import Worker

    taken = []

    async def application(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        taken.append(worker.taken)
        await asyncio.sleep(30)

    worker = Worker(1)
    scope = {"type": "http", "method": method, "path": "/", "headers": [(b"host", b"localhost")]}
    asyncio.run(asyncio.wait_for(Guard(application, worker, Settings(read_seconds=0.2))(scope, receive, send), 10))
    assert taken == [int(method == "POST")]
    assert worker.taken == 0


def test_stopping_refuses_what_is_half_sent(recognizer):
    import time

    with contextlib.ExitStack() as held:
        with served(recognizer) as url:
            wire = held.enter_context(wired(url))
            head = "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            wire.sendall(f"{head}Content-Length: 1000\r\n\r\n--b".encode())
            while not httpx.get(f"{url}/healthz").json()["busy"]:
                time.sleep(0.01)
            begun = time.monotonic()
        assert time.monotonic() - begun < 1.5
        assert b" 503 " in wire.recv(4096)


def test_who_does_not_read_is_cut_off(recognizer):
    import socket
    import time

    with served(recognizer, read_seconds=0.5) as url, socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.connect(("127.0.0.1", int(url.rsplit(":", 1)[1])))
        wire.sendall(b"GET /style.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1200)
        time.sleep(2)
        found = 0
        wire.settimeout(10)
        with contextlib.suppress(ConnectionError):
            while data := wire.recv(1 << 20):
                found += len(data)
        assert found < 1200 * 10_000


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", b"400"),
        (b"POST /api/rank HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"POST /api/rank HTTP/1.1\r\nHost: evil\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: evil\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", b"421"),
    ],
)  # fmt: skip
def test_what_is_no_http_is_refused(recognizer, sent, status):
    """By uvicorn in plain text, or by the guard as every error."""
    import json

    with served(recognizer) as url, wired(url) as wire:
        wire.sendall(sent)
        answer = b""
        while not answer.endswith((b"}", b"received.", b"0\r\n\r\n")) and (data := wire.recv(65_536)):
            answer += data
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.split()[1] == status
    if b"Invalid HTTP request received." not in body:
        assert b"nosniff" in head
        assert b"frame-ancestors 'none'" in head
        assert set(json.loads(body)) == {"error", "hint"}
    else:
        assert status == b"400"


def test_a_form_names_no_codec(client):
    for charset in ("unicode_escape", "undefined", "zlib"):
        kind = {"Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}
        body = b'--b\r\nContent-Disposition: form-data; name="only"\r\n\r\n\\ud800\r\n--b--\r\n'
        assert client.post("/api/predict", content=body, headers=kind).status_code == 400


@pytest.mark.parametrize("name", ["..", ".", "a\nb", "a\x00b", "\x1b[31m", "x" * 201, "\u2028"])
def test_names_that_are_none(client, name):
    before = client.get("/api/classes").json()
    assert client.post("/api/classes", json={"name": name, "like": "emu"}).status_code == 422
    assert client.patch("/api/classes/emu", json={"name": name}).status_code == 422
    assert client.get("/api/classes").json() == before


def test_half_a_character_is_no_name(client):
    json = {"Content-Type": "application/json"}
    for body in (b'{"name": "\\ud800"}', b'{"values": {"\\ud800": 1}}'):
        assert client.patch("/api/classes/emu", content=body, headers=json).status_code == 422
    look = '{"look": {"attribute_scores": [0, 0, 0, 0, 0]}, "target": "\\ud800"}'
    answer = client.post("/api/rank", content=look, headers=json)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "hint"}


@pytest.mark.parametrize("value", ["1e300", "-1e13", "NaN", "1e999", "Infinity"])
def test_numbers_beyond_all_measure(client, png, value):
    json = {"Content-Type": "application/json"}
    body = f'{{"name": "new", "values": {{"crown::red": {value}}}}}'
    assert client.post("/api/classes", content=body, headers=json).status_code == 422
    table = f"class,crown::red\nnew,{value}\n"
    assert client.post("/api/classes", content=table, headers={"Content-Type": "text/csv"}).status_code == 422
    look = f'{{"look": {{"attribute_scores": [0, 0, 0, 0, {value}]}}}}'
    assert client.post("/api/rank", content=look, headers=json).status_code == 422
    assert send(client, png).json()["predictions"][0]["error"] is None


def test_an_error_is_short(client):
    answer = client.get("/api/classes/" + "x" * 5000)
    assert answer.status_code == 404
    assert len(answer.json()["error"]) <= 503


def test_so_many_classes_and_no_more(recognizer):
    with client_of(recognizer, added=2) as client:
        table = "class,crown::red\n" + "".join(f"bird {i},0.5\n" for i in range(3))
        csv = {"Content-Type": "text/csv"}
        assert client.post("/api/classes", content=table, headers=csv).status_code == 409
        assert len(client.get("/api/classes").json()["classes"]) == 6
        many = "class,crown::red\n" + "".join(f"bird {i},0.5\n" for i in range(1001))
        assert client.post("/api/classes", content=many, headers=csv).status_code == 413


def test_no_path_redirects(client):
    assert client.get("/healthz/", follow_redirects=False).status_code == 404


def test_others_come_in_between_many_images(recognizer, png):
    async def ask(url):
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            files = [("images", (f"{i}", png)) for i in range(60)]
            many = asyncio.create_task(client.post("/api/predict", files=files))
            while not (await client.get("/healthz")).json()["busy"]:
                await asyncio.sleep(0)
            await client.get("/api/separate", params={"first": "emu", "second": "gull"})
            return many.done(), (await many).status_code

    with served(recognizer) as url:
        assert asyncio.run(ask(url)) == (False, 200)


def test_stopping_refuses_what_waits(recognizer, png, monkeypatch):
    import time

    predict = recognizer.predict

    def slow(*args, **options):
        time.sleep(0.3)
        return predict(*args, **options)

    monkeypatch.setattr(recognizer, "predict", slow)
    found = []

    async def ask(url):
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            asked = [client.post("/api/predict", files={"images": ("a", png)}) for _ in range(20)]
            found.extend(a.status_code for a in await asyncio.gather(*asked))

    with served(recognizer) as url:
        thread = threading.Thread(target=lambda: asyncio.run(ask(url)))
        thread.start()
        time.sleep(1)
        begun = time.monotonic()
    assert time.monotonic() - begun < 3
    thread.join()
    assert set(found) == {200, 503}
