"""The CSV file behind a Google Sheets link."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from unseen.errors import DataError
from unseen.ground.files import write_with

_SHEET = re.compile(r"/spreadsheets/d/(?!e/)([A-Za-z0-9_-]+)")
_PUBLISHED = re.compile(r"/spreadsheets/d/e/([A-Za-z0-9_-]+)")
SHARE = 'share it as "anyone with the link", or publish it to the web'
MOST = 2**28
SECONDS = 30


def is_sheet(address: str) -> bool:
    """Whether it is a link to a Google Sheet."""
    parts = urlsplit(address)
    return parts.hostname == "docs.google.com" and bool(_SHEET.search(parts.path) or _PUBLISHED.search(parts.path))


def csv_address(address: str) -> str:
    """URL of a sheet as CSV: the sheet that the link shows (``gid``), else the first."""
    parts = urlsplit(address)
    gid = (parse_qs(parts.fragment).get("gid") or parse_qs(parts.query).get("gid") or [""])[0]
    sheet = f"&gid={gid}" if gid.isdigit() else ""
    if found := _PUBLISHED.search(parts.path):
        return f"https://docs.google.com/spreadsheets/d/e/{found[1]}/pub?output=csv{sheet}"
    found = _SHEET.search(parts.path)
    assert found is not None
    return f"https://docs.google.com/spreadsheets/d/{found[1]}/export?format=csv{sheet}"


def fetch_table(address: str, target: Path) -> Path:
    """Write the CSV at a URL to a file.

    Raises:
        DataError: it cannot be downloaded, or is a sign-in page.
    """
    if not address.startswith(("https://", "http://")):
        raise DataError("not a web address", where=address, hint="pass the link of the sheet")
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as reply:  # noqa: S310 - of the web, as just seen
            data = reply.read(MOST + 1)
            kind = reply.headers.get_content_type()
    except urllib.error.HTTPError as error:
        raise DataError(f"{error.code} {error.reason}", where=address, hint=SHARE) from None
    except OSError as error:
        said = str(getattr(error, "reason", error))
        raise DataError(f"cannot be fetched ({said})", where=address, hint="check the network and the link") from None
    if kind == "text/html":
        raise DataError("a sign-in page instead of a table", where=address, hint=SHARE)
    if len(data) > MOST:
        raise DataError("more than 256 MiB", where=address, hint="download it, and import the file")
    write_with(target, lambda path: path.write_bytes(data))
    return target
