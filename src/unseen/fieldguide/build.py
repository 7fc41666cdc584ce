"""Write the fieldguide as a dataset folder."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unseen.errors import DataError
from unseen.fieldguide.attributes import ATTRIBUTES, GROUPS, PARTS, attribute_vector
from unseen.fieldguide.drawing import Box, Part, draw
from unseen.fieldguide.species import Species, invent

VERSION = 2
_LEAST = {"species": 10, "images": 2, "size": 32}
_MOST_SPECIES = 200


def build(
    folder: Path,
    *,
    seed: int = 0,
    species: int = 60,
    images: int = 40,
    size: int = 128,
    workers: int | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> None:
    """Draw the fieldguide into a new dataset folder.

    The same seed and sizes give the same bytes, with any number of workers. The folder appears only when complete.

    Args:
        folder: where to write; must not exist, or be empty.
        seed: seed of the world of birds.
        species: number of species, seen and unseen together.
        images: number of images of each.
        size: side of the square images in pixels.
        workers: number of processes that draw; by default one per core.
        tick: called with the images done so far and their total.

    Raises:
        DataError: the folder is taken, or a size is out of range.
    """
    for name, value in (("species", species), ("images", images), ("size", size)):
        if value < _LEAST[name]:
            raise DataError(f"{value} is too few", where=f"fieldguide {name}", hint=f"use at least {_LEAST[name]}")
    if species > _MOST_SPECIES:
        raise DataError(f"{species} is too many", where="fieldguide species", hint=f"use at most {_MOST_SPECIES}")
    if seed < 0:
        raise DataError(f"{seed} is negative", where="fieldguide seed", hint="use 0 or more")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError("already exists", where=folder, hint="remove it, or choose another folder")
    unfinished = folder.parent / f".{folder.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a call that was killed
    unfinished.mkdir(parents=True)
    try:
        _write(unfinished, seed, invent(seed, species), images, size, workers or os.cpu_count() or 1, tick)
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


Drawn = list[tuple[str, dict[str, Part], Box]]


def _draw_species(numbered: tuple[int, Species], folder: Path, seed: int, images: int, size: int) -> Drawn:
    """Draw and save all images of one species: file, parts and box of each."""
    index, kind = numbered
    (folder / kind.name).mkdir(parents=True)
    drawn = []
    for number in range(images):
        rng = np.random.default_rng([seed, index, number])
        image, parts, box = draw(kind.appearance, rng, size)
        file = f"{kind.name}/{number + 1:03d}.jpg"
        image.save(folder / file, quality=93, subsampling=0)
        drawn.append((file, parts, box))
    return drawn


def _draw_share(job: Mapping[str, Any], share: range) -> Iterator[Drawn]:
    """Draw the species of a share of the world, one after the other."""
    world = invent(job["seed"], job["species"])
    for index in share:
        yield _draw_species((index, world[index]), Path(job["folder"]), job["seed"], job["images"], job["size"])


def work() -> None:
    """Main function of a drawing process: its arguments hold the job; it prints one line of JSON per species."""
    job = json.loads(sys.argv[1])
    for drawn in _draw_share(job, range(job["first"], job["species"], job["step"])):
        sys.stdout.write(json.dumps(drawn) + "\n")
        sys.stdout.flush()


def _draw_all(job: Mapping[str, Any], workers: int) -> Iterator[Drawn]:
    """Every species in order, drawn by several processes.

    Uses plain processes because :mod:`multiprocessing` would run an unguarded script of the caller again.
    """
    if workers == 1:
        yield from _draw_share(job, range(job["species"]))
        return
    command = [sys.executable, "-c", "from unseen.fieldguide.build import work; work()"]
    processes = [
        subprocess.Popen(
            [*command, json.dumps({**job, "first": first, "step": workers})],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        for first in range(workers)
    ]
    try:
        for index in range(job["species"]):
            process = processes[index % workers]
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            if not line:
                reason = process.stderr.read().strip().splitlines() or ["no reason given"]
                raise DataError(f"a drawing process failed ({reason[-1]})", where="fieldguide", hint="try workers=1")
            yield [
                (file, {name: Part(*place) for name, place in parts.items()}, Box(*box))
                for file, parts, box in json.loads(line)
            ]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _write(
    folder: Path,
    seed: int,
    world: list[Species],
    images: int,
    size: int,
    workers: int,
    tick: Callable[[int, int], None] | None,
) -> None:
    job = {"folder": str(folder / "images"), "seed": seed, "species": len(world), "images": images, "size": size}
    drawn: list[Drawn] = []
    for result in _draw_all(job, min(workers, len(world))):
        drawn.append(result)
        if tick is not None:
            tick(len(drawn) * images, len(world) * images)
    _write_tables(folder, seed, world, drawn)
    about = {
        "name": "fieldguide",
        "version": VERSION,
        "description": "Birds drawn by the program unseen; no photos.",
        "seed": seed,
        "species": len(world),
        "images": images,
        "size": size,
    }
    (folder / "dataset.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _write_tables(folder: Path, seed: int, world: list[Species], drawn: list[Drawn]) -> None:
    images, parts, boxes = [], [], []
    for index, (kind, results) in enumerate(zip(world, drawn, strict=True)):
        held_out = _held_out(seed, index, len(results))
        for number, (file, places, box) in enumerate(results):
            split = "test_unseen" if not kind.seen else "test_seen" if number in held_out else "trainval"
            images.append((file, kind.name, split))
            boxes.append((file, *box))
            for part in PARTS:
                place = places[part]
                parts.append((file, part, f"{place.x:.1f}", f"{place.y:.1f}", int(place.visible)))
    classes = [
        (
            kind.name,
            int(kind.seen),
            int(kind.validation),
            kind.family,
            *(int(100 * v) for v in attribute_vector(kind.appearance)),
        )
        for kind in world
    ]
    attributes = [(f"{group.name}::{value}", group.name, group.part) for group in GROUPS for value in group.values]
    _table(folder / "images.csv", ("file", "class", "split"), images)
    _table(folder / "classes.csv", ("class", "seen", "validation", "family", *ATTRIBUTES), classes)
    _table(folder / "attributes.csv", ("attribute", "group", "part"), attributes)
    _table(folder / "parts.csv", ("file", "part", "x", "y", "visible"), parts)
    _table(folder / "boxes.csv", ("file", "x", "y", "width", "height"), boxes)


def _held_out(seed: int, index: int, images: int) -> set[int]:
    """The fifth of a seen species' images that is reserved for testing."""
    order = np.random.default_rng([seed, index, images, 1]).permutation(images)
    return set(order[: max(1, round(images * 0.2))].tolist())


def _table(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
