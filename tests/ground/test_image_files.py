"""One rule says which files are images, whatever road they come by, and nothing is left out unnamed."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from unseen.data.finding import FoundImages
from unseen.data.folder import load_folder
from unseen.data.folder_images import find_files
from unseen.errors import DataError
from unseen.ground.image_files import LeftOut, endings, image_files
from unseen.ground.images import formats, open_image
from unseen.releases.images import Images

ENDINGS = (
    "jpg",
    "JPG",
    "jpeg",
    "jpe",
    "jfif",
    "png",
    "webp",
    "bmp",
    "gif",
    "tif",
    "tiff",
    "avif",
    "heic",
    "ppm",
    "tga",
)
CONTENT = ("photo", "photo.jpg_large", "photo.jpg!d", "photo.dat")


def write(path, kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {".JPG": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".heic": "HEIF"}
    Image.fromarray(np.full((70, 80, 3), 90, np.uint8)).save(path, kind or kinds.get(path.suffix))


@pytest.fixture
def folder(tmp_path):
    """Images of every ending and of none in three class folders, beside files that are no images."""
    root = tmp_path / "own"
    for ending in ENDINGS:
        if ending != "heic" or "HEIF" in formats():
            write(root / f"images/bear/{ending}.{ending}")
    for name in CONTENT:
        write(root / "images/fox" / name, "JPEG")
    write(root / "images/elk/1.jpg")
    elsewhere = root / "images/elk/one"
    elsewhere.mkdir()
    write(elsewhere / "2.jpg")
    (root / "images/elk/two").symlink_to(elsewhere)
    (root / "images/elk/loop").symlink_to(root / "images/elk")
    (root / "images/elk/gone").symlink_to(root / "nowhere")
    (root / "images/elk/notes.txt").write_text("P5 or BM, II* and GIF8: no image")
    (root / "images/elk/P6.md").write_text("P6 is what it says")
    (root / "images/elk/raw.CR2").write_bytes(b"II*\0\x10\0\0\0CR\2\0")
    (root / "images/elk/.hidden.jpg").write_bytes(b"")
    (root / "images/elk/Thumbs.db").write_bytes(b"")
    os.mkfifo(root / "images/elk/pipe")
    (root / "classes.csv").write_text("class,big,red\nbear,1,0\nfox,0,1\nelk,1,1\nhare,0,0.5\n")
    return root


IMAGES = len(ENDINGS) + len(CONTENT) + 2 - ("HEIF" not in formats())


def test_every_road_finds_the_same_images(folder):
    below = [os.path.relpath(f, folder / "images") for f in image_files(folder / "images")]
    assert sorted(below) == find_files(folder / "images")[0]
    assert sorted(below) == list(Images.below(folder / "images").files)
    assert [str(p.relative_to(folder / "images")) for p in FoundImages([folder / "images"])] == below
    assert len(below) == IMAGES + 1  # one of them by a link
    shutil.rmtree(folder / "images/elk/one")
    dataset = load_folder(folder)
    assert len(dataset.files) == IMAGES - 1
    assert np.bincount(dataset.labels).tolist() == [len(ENDINGS), len(CONTENT), 1]
    for path in dataset.paths():
        assert open_image(path).size == (80, 70)


def test_what_is_left_out_is_counted_and_named(folder):
    left = LeftOut()
    assert len(list(image_files(folder / "images", left))) == IMAGES + 1
    assert len(left) == 6
    assert {line.replace(f"{folder}/images/elk/", "") for line in left.lines()} == {
        "1 file ignored, a link to its own parent folder: loop",
        "1 file ignored, a broken link: gone",
        "1 file ignored, .txt, not an image format: notes.txt",
        "1 file ignored, .md, not an image format: P6.md",
        "1 file ignored, .cr2, a camera raw file: export it as JPEG or PNG: raw.CR2",
        "1 file ignored, a pipe or a device: pipe",
    }
    shutil.rmtree(folder / "images/elk/one")
    assert sum("ignored" in warning for warning in load_folder(folder).warnings) == 6


def test_many_are_counted_and_three_named():
    left = LeftOut()
    for i in range(1200):
        left(f"{i}.txt", "no image")
    assert left.lines() == ["1,200 files ignored, no image: 0.txt, 1.txt, 2.txt, ..."]


def test_endings_are_those_of_the_formats():
    assert {".jpg", ".jpe", ".jfif", ".png", ".avif", ".heic", ".tga", ".jp2", ".mpo"} <= endings()
    assert not {".eps", ".pdf", ".fits", ".txt", ".cr2"} & endings()


def test_heif(tmp_path):
    pytest.importorskip("pillow_heif", reason="needs unseen[heif]")
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :48] = (200, 30, 30)
    Image.fromarray(pixels).save(tmp_path / "a.heic")
    image = open_image(tmp_path / "a.heic")
    assert image.size == (96, 64)
    np.testing.assert_allclose(np.asarray(image)[10, 30], (200, 30, 30), atol=12)


def test_an_empty_file_is_said_to_be_empty(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DataError, match=r"a\.jpg: the file is empty — replace or remove it"):
        open_image(tmp_path / "a.jpg")


def test_heif_without_the_plug_in_is_named_with_the_fix(tmp_path, monkeypatch):
    from unseen.ground import images

    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    monkeypatch.setattr(images, "formats", lambda: ("JPEG", "PNG"))
    with pytest.raises(DataError, match=r"Pillow cannot read this image — HEIF: pip install 'unseen\[heif\]'"):
        open_image(tmp_path / "a.heic")
    monkeypatch.setattr(images, "formats", lambda: ("JPEG", "HEIF"))
    with pytest.raises(DataError, match="this image — a damaged HEIF file: replace it"):
        open_image(tmp_path / "a.heic")
    assert [str(p) for p in FoundImages([tmp_path])] == [str(tmp_path / "a.heic")]  # it has a row with its error
