"""Static files of the pages, read once: no path from a request reaches the file system."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib.resources import files

import jinja2
from fastapi import FastAPI, Request, Response

from unseen.review.sheet import SCRIPTS, STYLES

KINDS = {"js": "text/javascript", "css": "text/css", "html": "text/html"}


def read_static(package: str, *names: str) -> dict[str, bytes]:
    """Files of ``PACKAGE/static`` by name."""
    return {name: (files(package) / "static" / name).read_bytes() for name in names}


def shared_files() -> dict[str, bytes]:
    """Files that every page needs: scripts and styles of the contact sheet, and shared ones."""
    return read_static("unseen.review", *STYLES, *SCRIPTS)


def modules_of(package: str, folder: str) -> list[str]:
    """Names of the modules in ``PACKAGE/static/FOLDER``, as :func:`read_static` takes them."""
    found = (files(package) / "static" / folder).iterdir()
    return sorted(f"{folder}/{file.name}" for file in found if file.name.endswith(".js"))


def page_with(package: str, name: str, modules: Iterable[str]) -> bytes:
    """A page that loads its modules at once, instead of each after the one that imports it."""
    template = jinja2.Template(read_static(package, name)[name].decode(), autoescape=True)
    text: str = template.render(modules=modules)
    return text.encode()


def add_static(app: FastAPI, found: Mapping[str, bytes], index: str) -> None:
    """Serve files by name, and ``index`` at the root."""
    for name, content in found.items():
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        kind = KINDS[name.rpartition(".")[2]]

        async def page(request: Request, content: bytes = content, kind: str = kind, tag: str = tag) -> Response:
            headers = {"ETag": tag, "Cache-Control": "no-cache"}
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers=headers)
            return Response(content, headers=headers, media_type=kind)

        app.add_route("/" if name == index else f"/{name}", page, methods=["GET", "HEAD"], include_in_schema=False)
