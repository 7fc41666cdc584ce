"""iNaturalist's CSV export of observations, and GBIF's simple download, with a hint for the better one.

Source: https://www.inaturalist.org/observations/export and https://techdocs.gbif.org/en/data-use/download-formats.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from unseen.data.layouts.entries import Entry
from unseen.data.layouts.source import Images, Source
from unseen.errors import DataError

TITLE = "iNaturalist's export of observations (CSV)"
LABELS = ("taxon_species_name", "scientific_name", "common_name", "species_guess")
_OWN = {"observed_on", "quality_grade", "taxon_id", "user_login", "iconic_taxon_name", *LABELS}
_GBIF = {"gbifID", "datasetKey", "occurrenceStatus", "scientificName"}


def recognizes(source: Source) -> bool:
    """Whether the source is one of the two."""
    return bool(_tables(source)) or (len(source.files) == 1 and set(source.header(source.files[0])) >= _GBIF)


def _tables(source: Source) -> list[str]:
    return [f for f in source.named(".csv") if "image_url" in (h := source.header(f)) and len(_OWN & set(h)) >= 2]


def read(source: Source, images: Images, label: str | None) -> Iterator[Entry]:
    """Yield every observation with an image; without a class if it is not determined to that rank."""
    if not _tables(source):
        problem = "GBIF's simple download has no addresses of images"
        raise DataError(problem, where=source.path, hint='download it as "Darwin Core Archive"')
    for file in _tables(source):
        header = source.header(file)
        column = next((name for name in ((label,) if label else LABELS) if name in header), None)
        if column is None:
            wanted = label or " or ".join(LABELS)
            raise DataError(
                f"no column {wanted}", where=source.place(file), hint=f"the columns are {', '.join(header)}"
            )
        with source.open(file) as opened:
            rows = csv.DictReader(io.TextIOWrapper(opened, "utf-8-sig", errors="replace", newline=""))
            for number, row in enumerate(rows, 2):
                if (row["image_url"] or "").strip():
                    yield Entry(
                        row["image_url"].strip(),
                        (row[column] or "").strip(),
                        f"{source.place(file)}, row {number}",
                        creator=row.get("user_name") or row.get("user_login") or "",
                        license=row.get("license") or "",
                    )
