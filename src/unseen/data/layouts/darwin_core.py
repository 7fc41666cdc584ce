r"""Darwin Core archives: occurrences with multimedia, as GBIF, iNaturalist, museums and herbaria give them.

Source: https://dwc.tdwg.org/text/ (``meta.xml``), https://rs.gbif.org/extension/gbif/1.0/multimedia.xml and the Audubon
Core. Columns, separators and quotes are those that ``meta.xml`` says.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from unseen.data.layouts.entries import Entry
from unseen.data.layouts.source import Images, Source
from unseen.errors import DataError
from unseen.ground.words import counted

TITLE = "Darwin Core archive (GBIF, iNaturalist, museums): occurrences with multimedia"
HINT = "download the archive again"
LABELS = ("species", "scientificName", "acceptedScientificName", "canonicalName", "vernacularName")
"""Terms that can name the class; the first one in the archive is used. An occurrence without a value has no class."""
_SPACE = "{http://rs.tdwg.org/dwc/text/}"
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\r": "\r"}
csv.field_size_limit(2**24)


@dataclass(frozen=True)
class Table:
    """One table of an archive.

    Args:
        file: path inside the archive.
        kind: last part of the row type, such as ``Occurrence``.
        key: column that joins core and extensions.
        terms: last part of each term, to its column; ``None`` if there is only a default.
        defaults: term to default value.
        separator, quote: characters around cells.
        skip: number of lines before the first row.
        encoding: text encoding.
    """

    file: str
    kind: str
    key: int
    terms: Mapping[str, int | None]
    defaults: Mapping[str, str]
    separator: str
    quote: str
    skip: int
    encoding: str

    def rows(self, source: Source) -> Iterator[tuple[int, str, dict[str, str]]]:
        """Yield line number, key and cells by term."""
        with source.open(self.file) as opened:
            text = io.TextIOWrapper(opened, self.encoding, errors="replace", newline="")
            if self.quote:
                rows = csv.reader(text, delimiter=self.separator, quotechar=self.quote)
            else:
                rows = csv.reader(text, delimiter=self.separator, quoting=csv.QUOTE_NONE)
            for number, cells in enumerate(rows, 1):
                if number <= self.skip or not cells:
                    continue
                last = max([self.key, *(i for i in self.terms.values() if i is not None)])
                if len(cells) <= last:
                    where = f"{source.place(self.file)}, row {number}"
                    raise DataError(f"{counted(len(cells), 'cell')}; meta.xml says {last + 1}", where=where, hint=HINT)
                found = {t: cells[i].strip() for t, i in self.terms.items() if i is not None}
                yield number, cells[self.key], {**self.defaults, **{t: c for t, c in found.items() if c}}


def recognizes(source: Source) -> bool:
    """Whether the source has the ``meta.xml`` of an archive."""
    return any(b"rs.tdwg.org/dwc/text" in source.head(f) for f in source.named("meta.xml"))


def tables(source: Source) -> tuple[Table, list[Table]]:
    """Core and extensions as described by ``meta.xml``."""
    file = source.named("meta.xml")[0]
    place, folder = source.place(file), file.rpartition("/")[0]
    root = source.load_xml(file, HINT)
    core = root.find(f"{_SPACE}core")
    if core is None:
        raise DataError("no core", where=place, hint=HINT)
    return _table(core, folder, place), [_table(e, folder, place) for e in root.findall(f"{_SPACE}extension")]


def _table(element: Element, folder: str, place: str) -> Table:
    location = element.findtext(f"{_SPACE}files/{_SPACE}location")
    key = element.find(f"{_SPACE}id")
    key = element.find(f"{_SPACE}coreid") if key is None else key
    if not location or key is None or not (key.get("index") or "").isdigit():
        raise DataError("a table without location or id", where=place, hint=HINT)
    terms: dict[str, int | None] = {}
    defaults = {}
    for found in element.findall(f"{_SPACE}field"):
        term = _last(found.get("term") or "")
        index = found.get("index")
        terms[term] = int(index) if index is not None else None
        if found.get("default"):
            defaults[term] = str(found.get("default"))
    separator = element.get("fieldsTerminatedBy", ",")
    return Table(
        f"{folder}/{location.strip()}".lstrip("/"),
        _last(element.get("rowType") or ""),
        int(key.get("index") or 0),
        terms,
        defaults,
        _ESCAPES.get(separator, separator) or ",",
        element.get("fieldsEnclosedBy", '"'),
        int(element.get("ignoreHeaderLines") or 0),
        element.get("encoding") or "UTF-8",
    )


def _last(term: str) -> str:
    return term.rstrip("/").replace("#", "/").rpartition("/")[2]


def read(source: Source, images: Images, label: str | None) -> Iterator[Entry]:
    """Yield every image of an occurrence; without a class if the occurrence is not determined to that rank."""
    core, extensions = tables(source)
    if core.kind not in ("Occurrence", "Event", "Taxon"):
        raise DataError(f"a core of {core.kind}", where=source.path, hint="use an archive of occurrences")
    wanted = (label,) if label else LABELS
    term = next((t for t in wanted if t in core.terms or t in core.defaults), None)
    if term is None:
        raise DataError(
            f"no term {' or '.join(wanted)}",
            where=source.place(core.file),
            hint=f"the core has {', '.join(core.terms)}",
        )
    media = [t for t in extensions if t.kind in ("Multimedia", "Image")]
    named: dict[str, tuple[str, dict[str, str]]] = {}
    for number, key, row in core.rows(source):
        name = row.get(term, "")
        if not media:
            for address in filter(None, map(str.strip, row.get("associatedMedia", "").split("|"))):
                where = f"{source.place(core.file)}, row {number}"
                yield _entry(address, name, {}, row, images, where)
        else:
            about: dict[str, str] = {t: row[t] for t in ("recordedBy", "license", "rightsHolder") if t in row}
            named[key] = (name, about)
    if not media and "associatedMedia" not in core.terms:
        hint = "download it as a Darwin Core archive with multimedia"
        raise DataError("occurrences without multimedia", where=source.path, hint=hint)
    for table in media:
        for number, key, row in table.rows(source):
            address = row.get("identifier") or row.get("accessURI") or ""
            still = row.get("type", "StillImage").rpartition("/")[2].casefold() in ("stillimage", "image", "")
            still &= row.get("format", "image/jpeg").casefold().startswith("image")
            if key in named and address and still:
                name, credit = named[key]
                yield _entry(address, name, row, credit, images, f"{source.place(table.file)}, row {number}")


def _entry(
    address: str, name: str, media: Mapping[str, str], row: Mapping[str, str], images: Images, where: str
) -> Entry:
    path = address if "://" in address else images.find(address, where=where)
    creator = (
        media.get("creator") or media.get("rightsHolder") or row.get("recordedBy") or row.get("rightsHolder") or ""
    )
    license = media.get("license") or media.get("rights") or row.get("license") or ""
    return Entry(path, name, where, creator=creator, license=license)
