"""Errors of the HTTP servers: each is one line with a hint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from unseen.errors import UnseenError
from unseen.serve.guard import HEADERS, problem


def add_errors(app: FastAPI) -> None:
    """Turn every error into one line with a hint."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        hint = getattr(error, "hint", "see /api/openapi.json for the endpoints")
        return problem(error.status_code, str(error.detail), hint, dict(error.headers or {}))

    async def hintable(_: Request, error: Exception) -> Response:
        assert isinstance(error, UnseenError)
        text = error.problem if error.where is None else f"{error.where}: {error.problem}"
        return problem(422, " ".join(text.splitlines()), error.hint or "see /api/openapi.json")

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem(422, first_error(error.errors()), "see /api/openapi.json for the fields")

    async def gone(_: Request, error: Exception) -> Response:  # nothing more arrives from it
        return problem(400, "the connection closed during the request", "send it again")

    async def failed(_: Request, error: Exception) -> Response:  # answers outside the guard
        hint = "report this with the image or request that caused it"
        return problem(500, "the server failed; see its log", hint, HEADERS)

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(UnseenError, hintable)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, failed)


def first_error(errors: Sequence[Any]) -> str:
    """The first error of a validation as one line."""
    place = ".".join(str(part) for part in errors[0]["loc"] if part != "body")
    return f"{place}: {errors[0]['msg']}" if place else str(errors[0]["msg"])
