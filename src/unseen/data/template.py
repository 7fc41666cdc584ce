"""A spreadsheet to fill in for one's own images, and a completed example."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unseen.classes.spreadsheets.tables import SUFFIXES
from unseen.data.checks.tables import EXAMPLE
from unseen.data.folder_images import find_files
from unseen.errors import DataError, UnseenError
from unseen.ground.files import csv_text, write_text, write_with
from unseen.ground.words import pasted

if TYPE_CHECKING:
    from unseen.data.dataset import Dataset

FORMATS = ("xlsx", "csv")

HEADER = {
    "class": "Name of the class; its image folder has the same name. One row per class, with or without images.",
    "white tail tip": "Yes or no. Also 1 and 0, or x and blank. Replace these example columns with your own.",
    "fur colors": "Words, separated by semicolons. Each word becomes an attribute.",
    "ear size": "Ordered words, such as small, medium, large or never, sometimes, always.",
    "body length cm": "A number, with one unit in the whole column; 60-80 counts as 70.",
    "snow in its habitat": "A percentage. Leave a cell blank if you do not know the value.",
}
ROWS = (
    (f"{EXAMPLE} red fox", "yes", "red; white; black", "medium", "70", "20%"),
    (f"{EXAMPLE} arctic fox", "no", "white", "small", "", "90%"),
)
ATTRIBUTES = {
    "attribute": 'Optional sheet. Name of a column of the sheet "classes", or column::value.',
    "group": "Reports show attributes of one group together.",
    "part": "Part of the object where the attribute is visible: tail, ear.",
    "scale": "How to read the column, if `unseen check` guesses wrong: low<medium<high, yes/no, "
    "percent, number, 0..50, categories, rank (such as genus or family), ignore.",
    "missing": "Words or codes for missing values in this column, such as -999, separated by semicolons.",
    "description": "Notes for readers.",
}
HELP = """\
Your images and your knowledge of the classes

1. Images: make one folder per class in images/, named like the class: images/red fox/1.jpg.
   Classes without images need no folder. The model will learn to recognize them from the table.
2. Table: fill in one row per class in {table}, with or without images. Make one column for each attribute that
   can be seen in an image: yes or no; words such as small, medium, large; numbers; percentages; colors (several:
   red; white). Leave a cell blank if you do not know its value.
3. Check the folder:   unseen check {folder}
4. Train:              unseen train {folder}

Good attributes are visible in images, occur in several classes with images, and separate the classes.
At least 3 classes need images; about 20 classes with 20 images each are a good start.
"""


def write_template(folder: Path, format: str = "xlsx") -> list[Path]:
    """Write a class table with explanations, a guide, and folders for images.

    If there are folders of images already, the table has a row for each of them to fill in.

    Args:
        folder: new, empty, or with images.
        format: ``xlsx`` or ``csv``.

    Returns:
        The written files.

    Raises:
        DataError: one of the files already exists.
    """
    table = _free(folder, format)
    images = folder / "images" if (folder / "images").is_dir() else folder
    found = sorted({Path(file).parts[0] for file in find_files(images)[0] if len(Path(file).parts) > 1})
    rows = [(name, *[""] * (len(HEADER) - 1)) for name in found] or ROWS
    written = [table, folder / "README.txt"]
    if not found:
        for name, *_ in rows:
            (folder / "images" / name).mkdir(parents=True, exist_ok=True)
        written.append(folder / "images")
    write_text(written[1], HELP.format(table=table.name, folder=pasted(folder)))
    try:
        _write_table(table, HEADER, rows, folder)
    except UnseenError:
        written[1].unlink()  # it would prevent repeating the call
        raise
    return written


def write_example(folder: Path, birds: Dataset, format: str = "xlsx") -> list[Path]:
    """Write the drawn birds as a user would have them: images in class folders, and a table of words.

    Leaves out the images of unseen species and the test images of the others. Images of unseen species go to
    ``new-images/``, to recognize later.

    Args:
        folder: new or empty.
        birds: the built-in dataset.
        format: format of the table, ``xlsx`` or ``csv``.
    """
    table = _free(folder, format)
    if (folder / "images").exists():
        raise DataError("already exists", where=folder / "images", hint="choose another folder")
    for source, file, split in zip(birds.paths(), birds.files, birds.split, strict=True):
        if split != "test_seen":
            target = folder / ("images" if split == "trainval" else "new-images") / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    groups = birds.table.attributes.by_group()
    parts = birds.table.attributes.parts
    above = [groups.pop(name) for name in ("back_color", "wing_color")]
    columns = [group.replace("_", " ") for group in groups]
    rows = [
        [name, *(_word(birds, c, k) for k in groups.values()), "; ".join(sorted({_word(birds, c, k) for k in above}))]
        for c, name in enumerate(birds.table.names)
    ]
    header = {"class": HEADER["class"], **dict.fromkeys(columns, ""), "upperparts": HEADER["fur colors"]}
    about = [[column, "", parts[k[0]], "", "", ""] for column, k in zip(columns, groups.values(), strict=True)]
    about.append(["upperparts", "", "back", "", "", "colors of back and wings"])
    _write_table(table, header, rows, folder, about)
    readme = folder / "README.txt"
    write_text(
        readme,
        "Birds drawn by the program, arranged like a dataset of your own: images in images/, and a table of classes.\n"
        "The species in new-images/ have no images to train on, only rows in the table.\n\n"
        f"unseen check {pasted(folder)}\nunseen train {pasted(folder)} --backbone fieldguide\n\n"
        "The backbone is a small network for these drawings; leave it out for photographs.\n",
    )
    return [table, readme, folder / "images", folder / "new-images"]


YES_NO = {"crested": "yes", "smooth": "no", "ringed": "yes", "striped": "yes", "barred": "yes", "plain": "no"}


def _word(birds: Dataset, c: int, attributes: Sequence[int]) -> str:
    """Value of a bird for an attribute group, as a person would write it."""
    values = [birds.table.attributes.names[k].split("::")[1] for k in attributes]
    value = values[int(birds.table.values[c, list(attributes)].argmax())]
    return YES_NO[value] if len(values) == 2 and value in YES_NO else value


def _free(folder: Path, format: str) -> Path:
    if format not in FORMATS:
        raise DataError(f'unknown format "{format}"', hint=f"use one of {', '.join(FORMATS)}")
    taken = [f"{stem}{suffix}" for stem in ("classes", "attributes") for suffix in SUFFIXES]
    readme = HELP.format(table=f"classes.{format}", folder=pasted(folder))  # left by a call that was killed
    if (folder / "README.txt").is_file() and (folder / "README.txt").read_bytes() != readme.encode():
        taken.append("README.txt")
    for name in taken:
        if (folder / name).exists():
            raise DataError("already exists", where=folder / name, hint="move it, or choose another folder")
    return folder / f"classes.{format}"


def _write_table(
    path: Path,
    header: dict[str, str],
    rows: Sequence[Sequence[str]],
    folder: Path,
    about: Sequence[Sequence[str]] = (),
) -> None:
    """The class table, its explanations and the table of attributes, as sheets or files."""
    if path.suffix == ".csv":
        write_text(path, csv_text(list(header), rows))
        if about:
            write_text(path.with_name("attributes.csv"), csv_text(list(ATTRIBUTES), about))
        return
    import openpyxl
    from openpyxl.comments import Comment
    from openpyxl.styles import Alignment, Font

    book = openpyxl.Workbook()
    for title, columns, content in (("classes", header, rows), ("attributes", ATTRIBUTES, about)):
        sheet = book.active if title == "classes" else book.create_sheet()
        sheet.title = title
        sheet.append(list(columns))
        for row in content:
            sheet.append([int(cell) if cell.isdigit() else cell or None for cell in row])
        for cell, note in zip(sheet[1], columns.values(), strict=True):
            cell.font = Font(bold=True)
            if note:
                cell.comment = Comment(note, "unseen", height=110, width=280)
            sheet.column_dimensions[cell.column_letter].width = max(14, len(str(cell.value)) + 4)
        sheet.freeze_panes = "B2" if title == "classes" else "A2"
    for row in book["classes"].iter_rows(min_row=2):
        for cell in row:
            if isinstance(cell.value, str) and cell.value.endswith("%"):
                cell.value, cell.number_format = int(cell.value[:-1]) / 100, "0%"
    book["classes"].column_dimensions["A"].width = 28
    sheet = book.create_sheet("help")
    for line in HELP.format(table=path.name, folder=pasted(folder)).splitlines():
        sheet.append([line])
    for name, note in (*header.items(), *ATTRIBUTES.items()):
        if note:
            sheet.append([f"{name}: {note}"])
    sheet.column_dimensions["A"].width = 120
    for (cell,) in sheet.iter_rows():
        cell.alignment = Alignment(wrap_text=True, vertical="top")
    archive = io.BytesIO()  # an incomplete archive complains when it is garbage-collected
    book.save(archive)
    write_with(path, lambda temporary: temporary.write_bytes(archive.getvalue()))
