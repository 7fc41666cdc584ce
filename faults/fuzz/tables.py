"""Tables in four formats, in every role."""

# ruff: noqa: E501 - lists of odd values
from __future__ import annotations

import csv
import io
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from faults.fuzz.mutate import spoil
from faults.fuzz.target import Case, Target, WrongResultError

CELLS: tuple[str, ...] = (
    "", " ", "0", "1", "-0", "nan", "NaN", "inf", "-inf", "1e400", "1e-400", "1,5", "1.5", "0x10", "1_000", "80%", "101%", "-5 %",
    "yes", "no", "maybe", "#N/A", "#DIV/0!", "#REF!", "NULL", "None", "=1+1", "=SUM(A1:A9)", "@cmd", "+1", "'1", "2026-01-31",
    "12:00", "red; green", "red;", ";", "red and green", "very red", "\u00e9", "e\u0301", "\u202eabc", "\u200b", "\ufeff", "\U0001f426", "ß", "ſ",
    "İ", "a\tb", "a\nb", "a\r\nb", 'a"b', '"', "'", ",", "\x1b[31m", "\x7f", "\x01", "1" * 400, "9" * 5000, "x" * 40_000, "../x", "/etc/passwd",
    "class", "seen", "std", "::", "a::b", "true", "²", "١", "½", "1e5", "-", "?", "n/a", "0-10", "2 of 5", "5/5", "(1)", "[1, 2]", "{}",
)  # fmt: skip

Rows = list[list[str]]


def good_classes(rng: Random) -> Rows:
    """A valid class table: 4 to 6 classes, numbers, yes and no, words, percent. The first two differ in direction."""
    n = rng.randint(4, 6)
    header = ["class", "seen", "size", "striped", "colour", "share"][: rng.randint(4, 6)]
    body = [
        [f"bird {i}", "1" if i < n - 1 else "0", str(i + 1), ("yes", "no", rng.choice(("yes", "no")))[min(i, 2)], rng.choice(("red", "blue", "red; blue")), f"{10 * i}%"]
        for i in range(n)
    ]  # fmt: skip
    return [header, *(row[: len(header)] for row in body)]


def spoil_rows(rows: Rows, rng: Random) -> tuple[Rows, str]:
    """Rows with a few structural changes, and their names."""
    found, done = [list(row) for row in rows], []
    for _ in range(1 + min(4, int(rng.expovariate(0.7)))):
        how = rng.choice(_ROW_WAYS)
        how(found, rng)
        done.append(how.__name__.strip("_"))
    return found, ", ".join(done)


def _cell(rows: Rows, rng: Random) -> None:
    row = rng.choice(rows) if rows else []
    if row:
        row[rng.randrange(len(row))] = rng.choice(CELLS)


def _column(rows: Rows, rng: Random) -> None:
    if rows and rows[0]:
        c = rng.randrange(len(rows[0]))
        for row in rows[1:]:
            if c < len(row):
                row[c] = rng.choice(CELLS)


def _same_column(rows: Rows, rng: Random) -> None:
    if rows and rows[0]:
        c, value = rng.randrange(len(rows[0])), rng.choice(CELLS)
        for row in rows[1:]:
            if c < len(row):
                row[c] = value


def _header(rows: Rows, rng: Random) -> None:
    if rows and rows[0]:
        rows[0][rng.randrange(len(rows[0]))] = rng.choice(
            (*CELLS, "class", "file", "Class", "CLASS ", "label", "split")
        )


def _drop_row(rows: Rows, rng: Random) -> None:
    if rows:
        del rows[rng.randrange(len(rows))]


def _again(rows: Rows, rng: Random) -> None:
    if rows:
        rows.insert(rng.randrange(len(rows) + 1), list(rng.choice(rows)))


def _drop_cell(rows: Rows, rng: Random) -> None:
    row = rng.choice(rows) if rows else []
    if row:
        del row[rng.randrange(len(row))]


def _more_cells(rows: Rows, rng: Random) -> None:
    if rows:
        rng.choice(rows).extend([rng.choice(CELLS)] * rng.choice((1, 3, 200)))


def _wide(rows: Rows, rng: Random) -> None:
    count = rng.choice((50, 2000))
    for i, row in enumerate(rows):
        row.extend([f"a{j}" if i == 0 else "1" for j in range(count)])


def _shuffle(rows: Rows, rng: Random) -> None:
    rng.shuffle(rows)


_ROW_WAYS = (
    _cell, _cell, _cell, _column, _same_column, _header, _drop_row, _again, _drop_cell, _more_cells, _wide, _shuffle,
)  # fmt: skip


def as_csv(rows: Rows, rng: Random, plain: bool = False) -> bytes:
    """Rows as text, in one of the encodings and dialects that programs write; `plain`: one that must be readable."""
    out = io.StringIO()
    style = csv.writer(out, delimiter=rng.choice((",", ";", "\t")), lineterminator=rng.choice(("\n", "\r\n")))
    style.writerows(rows)
    text = out.getvalue().encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    encodings = (
        ("utf-8", "utf-8-sig")
        if plain
        else ("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "utf-32", "cp1252")
    )
    return text.encode(rng.choice(encodings), "replace")


def as_xlsx(rows: Rows, rng: Random, kinds: bool = True) -> bytes:
    """Rows as a workbook; `kinds`: some cells as numbers, dates, formulas, errors or merged."""
    import datetime

    import openpyxl
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = openpyxl.Workbook()
    sheet = book.active
    for r, row in enumerate(rows[:300], 1):
        for c, text in enumerate(row[:300], 1):
            value: Any = ILLEGAL_CHARACTERS_RE.sub("", text)[:30_000]
            if r > 1 and value.replace(".", "", 1).isdigit() and value.isascii() and len(value) < 300:
                value = float(value)
            if kinds and rng.random() < 0.03:
                value = rng.choice(
                    (True, None, datetime.datetime(2026, 1, 31), datetime.time(12), "=1+1", "#N/A", 1e300, -0.0, "=A1")
                )
            sheet.cell(r, c).value = value
            if kinds and rng.random() < 0.02:
                sheet.cell(r, c).number_format = rng.choice(("0%", "yyyy-mm-dd", "[h]:mm", "@"))
    if kinds and rng.random() < 0.1:
        sheet.merge_cells(start_row=1, start_column=1, end_row=rng.choice((1, 2)), end_column=2)
    if kinds and rng.random() < 0.15:
        book.create_sheet(rng.choice(("attributes", "classes", "Sheet2", "images")), rng.choice((0, None)))
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def spoil_zip(content: bytes, rng: Random) -> tuple[bytes, str]:
    """A workbook with one broken part, or with a bomb in it."""
    source = zipfile.ZipFile(io.BytesIO(content))
    parts = {name: source.read(name) for name in source.namelist()}
    name = rng.choice([*parts, "xl/worksheets/sheet1.xml", "xl/workbook.xml"])
    how = rng.choice(("spoil", "drop", "bomb", "entities", "far cell", "huge range", "twice", "external", "deep"))
    sheet = parts["xl/worksheets/sheet1.xml"]
    if how == "spoil":
        parts[name], _ = spoil(parts[name], rng)
    elif how == "drop":
        del parts[name]
    elif how == "bomb":
        parts[name] = parts[name] + b" " * rng.choice((10**6, 3 * 10**8))
    elif how == "entities":
        levels = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
        parts[name] = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "boom">' + levels.encode() + b"]><x>&e9;</x>"
    elif how == "external":
        parts[name] = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
    elif how == "far cell":
        parts["xl/worksheets/sheet1.xml"] = sheet.replace(
            b'r="A2"', rng.choice((b'r="XFD1048576"', b'r="A1048576"', b'r="XFD2"', b'r="ZZZZ9"'))
        )
    elif how == "huge range":
        parts["xl/worksheets/sheet1.xml"] = sheet.replace(
            b"</sheetData>", b'</sheetData><mergeCells count="1"><mergeCell ref="A1:XFD1048576"/></mergeCells>'
        )
    elif how == "deep":
        parts[name] = b"<a>" * 100_000
    elif how == "twice":
        parts["xl/worksheets/sheet1.xml"] = sheet.replace(b"</row>", b'</row><row r="1"></row>', 1)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for part, data in parts.items():
            target.writestr(part, data)
    return out.getvalue(), how


def as_parquet(rows: Rows, rng: Random, kinds: bool = True) -> bytes:
    """Rows as Parquet; `kinds`: some columns of odd types."""
    import datetime
    import decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    header, *body = rows or [["a"]]
    columns, names = [], []
    for c, name in enumerate(header[:100]):
        cells: Any = [row[c] if c < len(row) else None for row in body]
        array = pa.array([x if x is None else x.encode("utf-8", "replace").decode() for x in cells], pa.string())
        if kinds and rng.random() < 0.25:
            n = len(cells)
            array = rng.choice((
                lambda n=n: pa.array([[1, None, 2]] * n),
                lambda n=n: pa.array([{"a": 1, "b": "x"}] * n, pa.struct([("a", pa.int64()), ("b", pa.string())])),
                lambda n=n: pa.array([[("k", 1)]] * n, pa.map_(pa.string(), pa.int64())),
                lambda n=n: pa.array([b"\xff\x00"] * n, pa.binary()),
                lambda n=n: pa.array([datetime.datetime(2026, 1, 31)] * n),
                lambda n=n: pa.array([datetime.timedelta(days=9)] * n),
                lambda n=n: pa.array([decimal.Decimal("1.50")] * n),
                lambda n=n: pa.array([None] * n, pa.null()),
                lambda n=n: pa.array([float("nan"), float("inf"), -0.0, 1e308][:n] + [1.0] * (n - 4)),
                lambda n=n: pa.array(["x"] * n).dictionary_encode(),
                lambda n=n: pa.array([2**63] * n, pa.uint64()),
                lambda n=n: pa.array([True, None, False][:n] + [True] * (n - 3)),
                lambda n=n: pa.array([datetime.time(12)] * n),
                lambda n=n: pa.array([1.5] * n, pa.float16()),
                lambda n=n: pa.array([3] * n, pa.timestamp("ns", tz="Europe/Berlin")),
                lambda n=n: pa.array([[[1.0], None]] * n),
            ))()  # fmt: skip
        columns.append(array)
        names.append(name.encode("utf-8", "replace").decode())
    table = pa.Table.from_arrays(columns, names)
    if kinds and rng.random() < 0.2:
        table = table.replace_schema_metadata(
            {
                b"pandas": rng.choice(
                    (b"{}", b"nonsense", b'{"index_columns": ["class"], "columns": [], "column_indexes": []}')
                )
            }
        )
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression=rng.choice(("snappy", "gzip", "none")))
    return bytes(out.getvalue().to_pybytes())


def written(rows: Rows, rng: Random, kinds: bool = True) -> tuple[str, bytes]:
    """A suffix and the rows in that format; with `kinds` false, in a form that must be read exactly."""
    suffix = rng.choice((".csv", ".csv", ".tsv", ".xlsx", ".parquet"))
    if suffix == ".xlsx":
        return suffix, as_xlsx(rows, rng, kinds)
    if suffix == ".parquet":
        return suffix, as_parquet(rows, rng, kinds)
    if suffix == ".tsv":
        return suffix, "\n".join("\t".join(row) for row in rows).encode("utf-8", "replace")
    return suffix, as_csv(rows, rng, plain=not kinds)


@cache
def image(number: int) -> bytes:
    """A small photograph, a different one for every number."""
    import numpy as np
    from PIL import Image

    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 64)).save(out, "JPEG")
    return out.getvalue()


def good_folder(rng: Random, root: Path) -> dict[str, Rows]:
    """A dataset folder without its tables; they are returned by name, the class table last."""
    classes = good_classes(rng)
    names = [row[0] for row in classes[1:]]
    images: Rows = [["file", "class", "split"]]
    for i, name in enumerate(names):
        (root / "images" / name).mkdir(parents=True)
        for k in range(3):
            (root / "images" / name / f"{k}.jpg").write_bytes(image(3 * i + k))
            split = "test_unseen" if i == len(names) - 1 else ("test_seen" if k == 2 else "trainval")
            images.append([f"{name}/{k}.jpg", name, split])
    attributes: Rows = [["attribute", "group", "part"], *([name, "g", "p"] for name in classes[0][2:])]
    parts: Rows = [["file", "part", "x", "y", "visible"], *([row[0], "beak", "3", "4", "1"] for row in images[1:])]
    found = {
        name: rows
        for name, rows in (("images", images), ("attributes", attributes), ("parts", parts))
        if rng.random() < 0.5
    }
    return {**found, "classes": classes}


class Tables(Target):
    """A dataset folder with one broken table."""

    name = "tables"
    weight = 3.0

    def warm(self, folder: Path) -> None:  # noqa: D102
        import openpyxl  # noqa: F401
        import pyarrow.parquet  # noqa: F401

        import unseen.data.checks
        import unseen.data.folder  # noqa: F401

        for number in range(18):
            image(number)

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        root = folder / "birds"
        root.mkdir()
        tables = good_folder(rng, root)
        if rng.random() < 0.1:  # nothing broken, only another form: the same dataset
            for name, rows in tables.items():
                (root / f"{name}.csv").write_bytes(as_csv(rows, Random(0), plain=True))
            before = digest(root)
            for name, rows in tables.items():
                (root / f"{name}.csv").unlink()
                suffix, content = written(rows, rng, kinds=False)
                (root / f"{name}{suffix}").write_bytes(content)
            return Case("another format", must="accepted", data=before)
        victim = rng.choice(list(tables))
        said = []
        for name, sound in tables.items():
            if name == victim:
                rows = sound
                if rng.random() < 0.8:
                    rows, how = spoil_rows(sound, rng)
                    said.append(how)
                suffix, content = written(rows, rng)
                if suffix == ".xlsx" and rng.random() < 0.5:
                    content, how = spoil_zip(content, rng)
                    said.append(f"workbook: {how}")
                elif rng.random() < 0.4 or not said:
                    content, how = spoil(content, rng)
                    said.append(how)
                if rng.random() < 0.05:
                    suffix = rng.choice((".csv", ".tsv", ".xlsx", ".parquet", ".CSV", ".xls"))
            else:
                suffix, content = ".csv", as_csv(sound, rng, plain=True)
            (root / f"{name}{suffix}").write_bytes(content)
        return Case(f"{victim}: {'; '.join(said)}", names=("birds",))

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        from unseen.classes.table import ClassTable
        from unseen.data.checks import check_folder
        from unseen.data.folder import load_folder
        from unseen.errors import UnseenError

        root = folder / "birds"
        checked = check_folder(root, workers=1).of("error")
        try:
            dataset = load_folder(root)
        except UnseenError as error:
            if not checked:
                raise WrongResultError(f"`check` finds nothing, and loading says {error}") from None
            raise
        if checked:
            raise WrongResultError(f"`check` says {checked[0]}, and loading takes it")
        if case.data is not None and digest(root) != case.data:
            raise WrongResultError("another dataset")
        dataset.table.to_csv(folder / "again.csv")
        again = ClassTable.from_csv(folder / "again.csv")
        if again.names != dataset.table.names or (again.values != dataset.table.values).any():
            raise WrongResultError("written and read again, the classes are others")


def digest(root: Path) -> str:
    """Content of a dataset folder, as text."""
    from unseen.data.folder import load_folder

    found = load_folder(root)
    table = found.table
    return repr(
        (
            table.names,
            table.attributes.names,
            table.values.tolist(),
            table.seen.tolist(),
            found.files,
            list(found.labels),
            list(found.split),
        )
    )
