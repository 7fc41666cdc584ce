"""Uploaded images: read in memory, checked before decoding, never written to disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from unseen.errors import DataError
from unseen.ground.images import NoImageError, TooLargeError, image_of_bytes
from unseen.serve.settings import Refusal, Settings

FIELDS = 1000
FIELD_BYTES = 4096


@dataclass(frozen=True)
class Upload:
    """An uploaded image.

    Args:
        name: file name without folders; only for the answer.
        data: content of the file.
    """

    name: str
    data: bytes


def base_name(name: str | None) -> str:
    """An uploaded file name without folders and control characters, with at most 200 characters."""
    base = PurePosixPath((name or "").replace("\\", "/")).name
    return "".join(c for c in base if c.isprintable()).strip(" .")[:200] or "image"


async def read_form(request: Request, settings: Settings) -> FormData:
    """Parse a multipart body in memory.

    Raises:
        Refusal: it is invalid, or holds too many images or fields.
    """
    kind = request.headers.get("content-type", "").lower()
    if not kind.startswith("multipart/form-data"):
        raise Refusal(415, "the body is not multipart/form-data", "send images as form fields, as curl -F does")
    if "charset" in kind:  # it may name any of Python's codecs
        raise Refusal(400, "the form declares a charset", "send UTF-8 without a charset")
    parser = MultiPartParser(
        request.headers,
        request.stream(),
        max_files=settings.max_images,
        max_fields=FIELDS,
        max_part_size=FIELD_BYTES,
    )
    parser.spool_max_size = settings.max_upload + 1  # nothing larger arrives here, so nothing spills to disk
    try:
        return await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise Refusal(413, f"more than {settings.max_images} images", "send them in several requests") from None
        raise Refusal(400, error.message.rstrip("."), "send a well-formed multipart body") from None


async def read_uploads(request: Request, field: str, settings: Settings) -> tuple[list[Upload], FormData]:
    """Files of a form field, and the form for its texts.

    Raises:
        Refusal: no multipart body, no such file, or too many files or fields.
    """
    form = await read_form(request, settings)
    try:
        files = [item for item in form.getlist(field) if isinstance(item, UploadFile)]
        if not files:
            raise Refusal(422, f'no file in the form field "{field}"', f"send an image as {field}")
        return [Upload(base_name(file.filename), await file.read()) for file in files], form
    finally:
        await form.close()


def decode(upload: Upload, max_pixels: int) -> Image.Image:
    """The image upright and in 8-bit RGB; of an animation its first frame.

    The format follows from the content, not from the name, and the size is checked in the header before decoding.

    Raises:
        Refusal: too many pixels (413), or not an image in a supported format (415).
        DataError: a broken image.
    """
    try:
        return image_of_bytes(upload.data, upload.name, max_pixels)
    except TooLargeError as error:
        hint = f"save it with at most {max_pixels / 1e6:g} million"
        raise Refusal(413, f"{upload.name}: {error.problem}", hint) from None
    except NoImageError as error:
        heif = error.hint is not None and error.hint.startswith("HEIF")
        hint = str(error.hint) if heif else "send a JPEG, PNG, WebP, TIFF or another image file"
        problem = "not an image" if upload.data else "the file is empty"
        raise Refusal(415, f"{upload.name}: {problem}", hint) from None
    except DataError as error:
        raise DataError(error.problem, where=upload.name, hint="replace it") from None
