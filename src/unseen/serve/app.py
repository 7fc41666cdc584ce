"""The application: routes of the JSON API, and the page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, NoReturn

from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as InPath
from pydantic import ValidationError
from starlette.datastructures import FormData

from unseen.ground.words import counted
from unseen.recognizer import Recognizer
from unseen.review.sheet import MODULES, part_of_page
from unseen.serve import schema
from unseen.serve.about import attributes_of, describe, prior_of
from unseen.serve.classes import Classes
from unseen.serve.errors import add_errors, first_error
from unseen.serve.examples import Examples
from unseen.serve.guard import Guard
from unseen.serve.service import Service
from unseen.serve.settings import Refusal, Settings
from unseen.serve.static_files import add_static, modules_of, page_with, read_static, shared_files
from unseen.serve.supporting import SupportImages
from unseen.serve.tables import workbook_of
from unseen.serve.uploads import read_uploads
from unseen.serve.worker import Worker
from unseen.version import __version__

CHOICE = {
    "top": {"type": "integer", "default": 5},
    "among": {"type": "string", "enum": ["all", "seen", "unseen"], "default": "all"},
    "only": {"type": "array", "items": {"type": "string"}},
    "exclude": {"type": "array", "items": {"type": "string"}},
    "place": {"type": "string"},
    "month": {"type": "string"},
}
FILE = {"type": "string", "format": "binary"}
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
TABLES = {"text/csv": ".csv", "text/tab-separated-values": ".tsv", XLSX: ".xlsx"}


def create_app(
    recognizer: Recognizer,
    settings: Settings | None = None,
    *,
    name: str = "model",
    metrics: Sequence[schema.Metric] = (),
) -> FastAPI:
    """A web page and a JSON API for a model.

    Args:
        recognizer: model, used only by the application from now on.
        settings: limits of the server.
        name: name of the model on the page.
        metrics: its measured quality.
    """
    settings = settings or Settings()
    worker = Worker(settings.queue)
    service, examples = Service(recognizer, settings), Examples(recognizer, settings.max_pixels)
    classes = Classes(recognizer, settings, examples)
    support = SupportImages(classes)
    worker.before = classes.refresh
    about = describe(recognizer, name, list(metrics))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        worker.close()

    app = FastAPI(
        title="unseen",
        version=__version__,
        description="Recognize classes from a table of their attributes.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses={"4XX": {"model": schema.Problem}},
    )
    app.state.worker = worker
    app.add_middleware(Guard, worker=worker, settings=settings)
    add_errors(app)
    _add_page(app)
    refused = {"no_images": support.refused, "no_corrections": service.no_corrections}
    _add_model(app, classes, worker, about | refused)
    _add_answers(app, service, worker)
    _add_classes(app, classes, worker)
    _add_class_images(app, support, worker, settings)
    _add_files(app, examples, worker)
    return app


def _add_model(app: FastAPI, classes: Classes, worker: Worker, about: dict[str, Any]) -> None:
    settings = classes.settings

    @app.get("/healthz")
    async def health() -> schema.Health:
        """Report that the server is up, and its load."""
        return schema.Health(status="ok", busy=worker.taken, places=worker.places)

    @app.get("/api/about")
    async def about_model() -> schema.About:
        """The model, its data, its measured quality, its attributes, and the server's limits."""
        table = classes.recognizer.table
        seen = int(table.seen.sum())
        return schema.About(
            **about,
            classes=len(table),
            seen=seen,
            unseen=len(table) - seen,
            attributes=attributes_of(classes.recognizer),
            template=classes.template(),
            limits=schema.Limits(
                upload_bytes=settings.max_upload,
                image_pixels=settings.max_pixels,
                images=settings.max_images,
                requests=settings.queue,
            ),
            ranks=[] if table.taxonomy is None else list(table.taxonomy.ranks),
            **prior_of(settings),
            can_save=settings.save is None and settings.folder is not None,
            saves=settings.save is not None,
        )


def _add_answers(app: FastAPI, service: Service, worker: Worker) -> None:
    """Routes for images, looks and pairs of classes."""
    settings = service.settings

    @app.post("/api/predict", openapi_extra=_form({"images": {"type": "array", "items": FILE}, **CHOICE}, "images"))
    async def predict(request: Request) -> schema.Predictions:
        """Predict the classes of one or many images. The entry of an unreadable image has an error."""
        sent, form = await read_uploads(request, "images", settings)
        choice = _choice(form)
        await worker.do(lambda: service.check(choice))  # a wrong option is not an image's error
        # one by one, so that other requests come in between
        return schema.Predictions(predictions=[await worker.do(partial(service.predict, s, choice)) for s in sent])

    explain_fields = {"image": FILE, "target": {"type": "string"}, "rival": {"type": "string"}, **CHOICE}

    asked_for = {"preview": {"type": "boolean"}, "thumbnails": {"type": "boolean"}}

    @app.post("/api/explain", openapi_extra=_form({**explain_fields, **asked_for}, "image"))
    async def explain(request: Request) -> schema.Explanation:
        """Explain a prediction, with evidence and a heat map per attribute."""
        sent, form = await read_uploads(request, "image", settings)
        choice, target, rival = _choice(form), _text(form, "target"), _text(form, "rival")
        preview, thumbnails = (_text(form, name) in ("1", "true") for name in asked_for)
        if len(sent) > 1:
            raise Refusal(422, f"{counted(len(sent), 'image')}", "send one image per request")
        return await worker.do(lambda: service.explain(sent[0], choice, target, rival, preview, thumbnails))

    @app.post("/api/rank")
    async def rank(sent: schema.RankRequest) -> schema.Ranking:
        """Rank the classes by a look with corrected attributes; needs no image."""
        return await worker.do(lambda: service.rank(sent))

    @app.get("/api/separate")
    async def separate(first: str, second: str) -> schema.Separation:
        """Show what separates two classes, and which values to refine to separate them better."""
        with worker.place():
            return await worker.do(lambda: service.separate(first, second))


def _add_files(app: FastAPI, images: Examples, worker: Worker) -> None:
    """Routes for example images, and for tables as workbooks."""

    @app.get("/api/examples")
    async def examples() -> schema.Examples:
        """Training images to try the model on, one per class; empty if the images are elsewhere."""
        return schema.Examples(examples=images.names)

    @app.get("/api/examples/{number}")
    async def example(number: Annotated[int, InPath(ge=0)], small: bool = False) -> Response:
        """One of them, or of another class, as JPEG."""
        image = await worker.do(lambda: images.jpeg(number, small))
        return Response(image, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @app.post("/api/workbook", response_class=Response)
    async def workbook(table: schema.Table) -> Response:
        """A table as XLSX."""
        return Response(await worker.do(lambda: workbook_of(table)), media_type=XLSX)


def _add_classes(app: FastAPI, table: Classes, worker: Worker) -> None:
    """Routes to read and change the classes."""

    @app.get("/api/classes", response_model_exclude_none=True)
    async def classes() -> schema.Classes:
        """All classes."""
        with worker.place():
            return await worker.do(lambda: schema.Classes(classes=table.all(), outdated=table.outdated))

    bodies = {
        "application/json": {"schema": schema.NewClass.model_json_schema()},
        **{kind: {"schema": {"type": "string"}} for kind in TABLES},
    }

    @app.post(
        "/api/classes",
        status_code=201,
        response_model_exclude_none=True,
        openapi_extra={"requestBody": {"content": bodies}},
    )
    async def add(request: Request) -> schema.Changed:
        """Add a class (JSON), or many (a table with a column ``class`` and one column per attribute; all or none)."""
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind in TABLES:
            data = await request.body()
            return await worker.do(lambda: table.add_table(data, TABLES[kind]))
        if kind != "application/json":
            raise Refusal(415, f'a body of type "{kind[:50]}"', f"send application/json, {', '.join(TABLES)}")
        try:
            new = schema.NewClass.model_validate_json(await request.body())
        except ValidationError as error:
            _refuse(error.errors())
        return await worker.do(lambda: table.add(new))

    @app.post("/api/classes/save")
    async def save() -> schema.Saved:
        """Save the classes with the run, as ``unseen serve --save`` does after every change."""
        return await worker.do(table.save)

    @app.get("/api/classes/{name:path}", response_model_exclude_none=True)
    async def one_class(name: str) -> schema.ClassEntry:
        """A class with its attribute values."""
        with worker.place():
            return await worker.do(lambda: table.entry(name))

    @app.patch("/api/classes/{name:path}", response_model_exclude_none=True)
    async def edit(name: str, change: schema.ClassChange) -> schema.Changed:
        """Rename a class, or change its attribute values."""
        return await worker.do(lambda: table.edit(name, change))

    @app.delete("/api/classes/{name:path}")
    async def remove(name: str) -> schema.Changed:
        """Remove a class."""
        return await worker.do(lambda: table.remove(name))


def _add_class_images(app: FastAPI, support: SupportImages, worker: Worker, settings: Settings) -> None:
    """Routes for support images; their HTTP methods cannot be sent by a form of another site."""

    async def give(name: str, request: Request, new: bool) -> schema.ImagesAdded:
        await worker.do(lambda: support.check(name, new))
        sent, _ = await read_uploads(request, "images", settings)
        # one by one, so that other requests come in between
        read = [await worker.do(partial(support.read, one)) for one in sent]
        return await worker.do(lambda: support.add(name, read, new))

    form = _form({"images": {"type": "array", "items": FILE}}, "images")
    where = "/api/class-images/{name:path}"

    @app.get(where)
    async def images(name: str) -> schema.ImagesOfClass:
        """The support images of a class."""
        with worker.place():
            return await worker.do(lambda: support.listed(name))

    @app.patch(where, response_model_exclude_none=True, openapi_extra=form)
    async def add_images(name: str, request: Request) -> schema.ImagesAdded:
        """Add support images to a class; unreadable ones are left out."""
        return await give(name, request, False)

    @app.put(where, status_code=201, response_model_exclude_none=True, openapi_extra=form)
    async def class_of_images(name: str, request: Request) -> schema.ImagesAdded:
        """Create a class from images alone, without attributes."""
        return await give(name, request, True)

    @app.delete(where, response_model_exclude_none=True)
    async def remove_images(name: str, image: Annotated[list[str] | None, Query()] = None) -> schema.Changed:
        """Remove support images by their SHA-256, or all."""
        return await worker.do(lambda: support.remove(name, image or []))

    @app.get("/api/thumbnails/{digest}")
    async def thumbnail(digest: str) -> Response:
        """A support image as a small JPEG."""
        with worker.place():
            small = await worker.do(lambda: support.thumbnail(digest))
        return Response(small, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


def _add_page(app: FastAPI) -> None:
    modules = modules_of("unseen.serve", "page")
    own = read_static("unseen.serve", "style.css", *modules)
    made = {
        "index.html": page_with("unseen.serve", "index.html", [*modules, *MODULES]),
        "sheet-part.html": part_of_page().encode(),
    }
    add_static(app, own | shared_files() | made, "index.html")


def _refuse(errors: Sequence[Any]) -> NoReturn:
    raise Refusal(422, first_error(errors), "see /api/openapi.json for the fields") from None


def _form(fields: dict[str, Any], required: str) -> dict[str, Any]:
    """A multipart body for the OpenAPI description."""
    described = {"type": "object", "properties": fields, "required": [required]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": described}}}}


def _text(form: FormData, field: str) -> str | None:
    value = form.get(field)
    return value if isinstance(value, str) and value else None


def _choice(form: FormData) -> schema.Choice:
    known = {field: _text(form, field) for field in ("top", "among", "place", "month")}
    lists = {field: [v for v in form.getlist(field) if isinstance(v, str) and v] for field in ("only", "exclude")}
    try:
        return schema.Choice.model_validate({k: v for k, v in known.items() if v is not None} | lists)
    except ValidationError as error:
        _refuse(error.errors())
