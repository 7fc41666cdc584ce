"""Write a prepared benchmark as a dataset folder; images are linked, not copied."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unseen.classes.attributes import write_attributes
from unseen.data.dataset import Dataset
from unseen.data.folder import load_folder
from unseen.data.folder_images import FEATURES
from unseen.errors import DataError
from unseen.ground.files import write_json, write_text, write_with
from unseen.ground.images import opened_image
from unseen.ground.progress import Progress, silent
from unseen.releases.benchmark import Material

RECORD = "prepared.json"
QUALITY = 95
"""JPEG quality of objects cut out of photographs."""
_OWN = ("images.csv", "classes.csv", "attributes.csv", "attribute_vectors.npy", "parts.csv", "boxes.csv", RECORD)


def write_folder(
    output: Path, name: str, material: Material, record: dict[str, Any], progress: Progress = silent
) -> Dataset:
    """Write the folder, load it like any other command does, and only then move it into place.

    Args:
        output: folder to write; new, or prepared before and then replaced (imported features stay).
        name: name of the dataset.
        material: complete, checked material.
        record: facts about the sources, stored as ``prepared.json``.
        progress: progress callback for cutting out objects.

    Raises:
        DataError: the folder holds something else, or the dataset is inconsistent.
    """
    if output.exists() and not (output / RECORD).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise DataError("the folder holds something else", where=output, hint="choose another --output")
    made = output.parent / f".{output.name}.preparing"
    shutil.rmtree(made, ignore_errors=True)
    try:
        made.mkdir(parents=True)
        _fill(made, material, progress)
        dataset = load_folder(made, name)
        write_json(made / RECORD, record | {"fingerprint": dataset.fingerprint, "counts": dataset.describe()})
        _put_in_place(made, output)
    except OSError as error:
        raise DataError(error.strerror or str(error), where=output, hint="choose a writable folder") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return replace(dataset, images=output / "images")


def _fill(folder: Path, material: Material, progress: Progress) -> None:
    assert material.files is not None
    assert material.parts is not None
    assert material.attributes is not None
    classes, files = material.classes(), material.files
    if material.folder is None:
        (folder / FEATURES).mkdir()  # features replace images
    if material.objects is not None:
        files = _cut_out(folder / "images", material, progress)
    elif material.folder is not None:
        (folder / "images").symlink_to(material.folder.resolve(), target_is_directory=True)
    rows = {"file": files, "class": classes, "split": material.parts, "ps_row": range(len(files))}
    write_text(folder / "images.csv", pd.DataFrame(rows).to_csv(index=False))
    material.table().to_csv(folder / "classes.csv")
    write_attributes(folder / "attributes.csv", material.attributes)
    vectors = material.vectors
    if vectors is not None:
        write_with(folder / "attribute_vectors.npy", lambda path: _save(path, vectors))
    for name, frame in (("parts.csv", material.positions), ("boxes.csv", material.boxes)):
        if frame is not None:
            write_text(folder / name, frame.to_csv(index=False))


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _cut_out(folder: Path, material: Material, progress: Progress) -> tuple[str, ...]:
    """Write every object as an image; corners count pixels from 1 and belong to the box."""
    assert material.files is not None
    assert material.objects is not None
    names = []
    for i, (file, name, box) in enumerate(zip(material.files, material.classes(), material.objects, strict=True)):
        target = folder / name / f"{Path(file).stem}-{i + 1:05d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened_image(file) as image:
            left, top = (min(max(int(box[k]) - 1, 0), image.size[k] - 1) for k in (0, 1))
            right, bottom = (min(max(int(box[k + 2]), start + 1), image.size[k]) for k, start in ((0, left), (1, top)))
            part = image.convert("RGB").crop((left, top, right, bottom))
        part.save(target, quality=QUALITY)
        names.append(target.relative_to(folder).as_posix())
        progress("cutting out objects", i + 1, len(material.files))
    return tuple(names)


def _put_in_place(made: Path, output: Path) -> None:
    if not output.exists() or not any(output.iterdir()):
        if output.exists():
            output.rmdir()
        made.rename(output)
        return
    for name in (*_OWN, "images"):
        old, new = output / name, made / name
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        elif (old.exists() or old.is_symlink()) and (name == "images" or not new.exists()):
            old.unlink()
        if new.exists() or new.is_symlink():
            new.replace(old)
    if (made / FEATURES).is_dir() and not (output / FEATURES).exists():
        (made / FEATURES).rename(output / FEATURES)
