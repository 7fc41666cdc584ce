"""What tests of the server share: images as bytes, a client without a network, a server on a port."""

from __future__ import annotations

import io
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def drawn(seed: int = 1, size: tuple[int, int] = (100, 80)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size)


@contextmanager
def client_of(recognizer, **settings):
    from fastapi.testclient import TestClient

    from unseen.serve.app import create_app
    from unseen.serve.settings import Settings

    app = create_app(recognizer, Settings(**settings), name="tiny")
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as found:
        yield found


@contextmanager
def served(recognizer, **settings):
    """A real server on a free port; its address."""
    from unseen.serve.app import create_app
    from unseen.serve.settings import Settings

    limits = Settings(**settings)
    with listening(create_app(recognizer, limits, name="tiny"), limits) as found:
        yield found


@contextmanager
def listening(app, limits):
    """An application on a free port; its address."""
    from unseen.serve.server import Server, configure

    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(configure(app, limits, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
