"""The review page over HTTP: a contact sheet whose verdicts are stored in the review's folder."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Response
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field

from unseen.recognizer import Recognizer
from unseen.review import Review, Verdict, export_review
from unseen.review.sheet import page_of, review_data, thumbnail_bytes
from unseen.serve import schema
from unseen.serve.about import attributes_of
from unseen.serve.errors import add_errors
from unseen.serve.guard import Guard
from unseen.serve.service import Service
from unseen.serve.settings import Refusal, Settings
from unseen.serve.static_files import add_static, shared_files
from unseen.serve.uploads import Upload
from unseen.serve.worker import Worker
from unseen.version import __version__

THUMBNAIL, LARGE = 260, 1200
"""Longest sides of the images sent to the page."""
REASONS = 10
KINDS = {"csv": "text/csv", "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}
KEPT = {"Cache-Control": "private, max-age=3600"}
Row = Annotated[int, InPath(ge=0)]


class Given(BaseModel):
    """One verdict on several images."""

    model_config = ConfigDict(extra="forbid")

    rows: Annotated[list[int], Field(max_length=1_000_000)]
    name: Annotated[str | None, Field(alias="class")] = None
    undo: bool = False


class Verdicts(BaseModel):
    """A person's decision."""

    model_config = ConfigDict(extra="forbid")

    verdicts: list[Given]


def create_review_app(recognizer: Recognizer, review: Review, settings: Settings | None = None) -> FastAPI:
    """The contact sheet of a review.

    Args:
        recognizer: model for the reasons; used only by the application from now on.
        review: likewise; closed together with the application.
        settings: limits of the server.
    """
    settings = settings or Settings()
    worker, service = Worker(settings.queue), Service(recognizer, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        worker.close()
        review.close()

    app = FastAPI(title="unseen review", version=__version__, openapi_url=None, docs_url=None, lifespan=lifespan)
    app.state.worker = worker
    app.add_middleware(Guard, worker=worker, settings=settings)
    add_errors(app)
    _add_sheet(app, review)
    _add_images(app, review, worker)
    _add_review(app, review, worker, service)
    return app


def _add_sheet(app: FastAPI, review: Review) -> None:
    page = page_of(review.folder.name).encode()
    add_static(app, shared_files() | {"index.html": page}, "index.html")


def _add_images(app: FastAPI, review: Review, worker: Worker) -> None:
    async def jpeg(row: int, side: int) -> Response:
        image = _image(review, row)
        small = await worker.do(lambda: thumbnail_bytes(image, side))
        if small is None:
            raise Refusal(404, "the image cannot be read", "check that the file is still there")
        return Response(small, media_type="image/jpeg", headers=KEPT)

    @app.get("/thumb/{row}")
    async def thumb(row: Row) -> Response:
        return await jpeg(row, THUMBNAIL)

    @app.get("/image/{row}")
    async def large(row: Row) -> Response:
        return await jpeg(row, LARGE)


def _add_review(app: FastAPI, review: Review, worker: Worker, service: Service) -> None:
    @app.get("/api/review")
    async def everything() -> dict[str, Any]:
        """All images with their answers, and the verdicts so far."""
        found = review_data(review.items, review.classes, review.order, review.used)
        verdicts = [[row, verdict.name] for row, verdict in review.verdicts.items()]
        return found | {"verdicts": verdicts}

    @app.post("/api/review/verdicts")
    async def decide(given: Verdicts) -> dict[str, Any]:
        """Store verdicts; they are on disk when this answers."""

        def keep() -> None:
            for one in given.verdicts:
                review.decide(one.rows, None if one.undo else Verdict(one.name))

        await worker.do(keep)
        return {"reviewed": vars(review.reviewed()), "estimated": vars(review.estimated())}

    @app.get("/api/review/{row}/reasons")
    async def reasons(row: Row) -> dict[str, Any]:
        """The strongest reasons for the class of the answer, with heat maps."""
        image = _image(review, row)
        answered = [name for name, *_ in review.items[row].classes[:1] if name in service.recognizer.classes]
        target = answered[0] if answered else None

        def explain() -> schema.Explanation:
            return service.explain(Upload(image.name, image.read_bytes()), schema.Choice(), target, None, False, False)

        try:
            found = await worker.do(explain)
        except OSError as error:
            raise Refusal(404, error.strerror or str(error), "check that the file is still there") from None
        labels = {entry.name: entry.label for entry in attributes_of(service.recognizer)}
        strongest = sorted(found.reasons, key=lambda r: -abs(r.evidence))[:REASONS]
        return {
            "crop": [edge / size for edge, size in zip(found.crop, 2 * (found.width, found.height), strict=True)],
            "reasons": [{"label": labels[r.attribute], "evidence": r.evidence, "heat": r.heat} for r in strongest],
        }

    @app.get("/api/review/export.{kind}")
    async def export(kind: str) -> Response:
        """The table."""
        if kind not in KINDS:
            raise Refusal(404, f"no export as {kind[:20]}", f"one of {', '.join(KINDS)}")

        def write() -> bytes:
            with tempfile.TemporaryDirectory() as folder:
                return export_review(review, Path(folder) / f"review.{kind}").read_bytes()

        headers = {"Content-Disposition": f'attachment; filename="review.{kind}"'}
        return Response(await worker.do(write), media_type=KINDS[kind], headers=headers)

    @app.post("/api/review/folders")
    async def folders() -> dict[str, str]:
        """Copy the images into one folder per class, beside the verdicts."""
        target = _new_folder(review.folder)
        await worker.do(lambda: export_review(review, target))
        return {"folder": str(target)}


def _image(review: Review, row: int) -> Path:
    if row >= len(review.items):
        raise Refusal(404, f"no image {row}", f"0 to {len(review.items) - 1}")
    return Path(review.items[row].image)


def _new_folder(folder: Path) -> Path:
    target, count = folder / "classes", 1
    while target.exists():
        count += 1
        target = folder / f"classes-{count}"
    return target
