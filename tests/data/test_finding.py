"""Which images files, folders, patterns and lists name, and in what order."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from unseen.data import finding
from unseen.data.finding import FoundImages, find_images
from unseen.errors import DataError, UnseenError


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.jpg", "b/10.PNG", "b.jpg", "a/x/1.webp", "a/z.txt", "a/.1.jpg", ".t/1.jpg", "odd", "a[1].jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")
    return tmp_path


def names(*sources, lists=()):
    return [str(p) for p in FoundImages(sources, lists)]


def test_folders_in_order_without_hidden_files(images):
    assert names(".") == ["a/x/1.webp", "a[1].jpg", "b/10.PNG", "b/2.jpg", "b.jpg"]
    found = FoundImages(["."])
    assert len(list(found)) == 5
    assert found.left_out.lines() == [
        "1 file ignored, .txt, not an image format: ./a/z.txt",
        "1 file ignored, no ending, not an image format: ./odd",
    ]
    assert [str(Path(n)) for n in names("b", "b.jpg")] == ["b/10.PNG", "b/2.jpg", "b.jpg"]


def test_files_and_patterns(images):
    assert names("odd", "a/z.txt", "odd") == ["odd", "a/z.txt", "odd"]
    assert names("**/*.jpg") == ["a[1].jpg", "b/2.jpg", "b.jpg"]
    assert names("a[1].jpg") == ["a[1].jpg"]  # a file, though it reads as a pattern
    assert names("b/*") == ["b/10.PNG", "b/2.jpg"]
    assert names("*") == ["a[1].jpg", "b.jpg", "odd"]  # files only


@pytest.mark.parametrize(
    ("source", "words"),
    [("no.jpg", "no such file"), ("*.gif", "no file matches"), ("a/.x", "no such file"), ("empty", "no images")],
)
def test_sources_that_are_nothing(images, source, words):
    Path("empty").mkdir()
    with pytest.raises(UnseenError, match=words):
        find_images(["b", source])


def test_lists(images):
    Path("list.txt").write_text("\ufeffb.jpg\n\n gone.jpg \r\n./a/x/1.webp", encoding="utf-8")
    assert names(lists=[Path("list.txt")]) == ["b.jpg", "gone.jpg", "a/x/1.webp"]
    Path("a/list.csv").write_text('n,Image,class\n1,"x/1.webp",k\n2,,k\n3,b.jpg,k\n')
    assert names("odd", lists=[Path("a/list.csv")]) == ["odd", "a/x/1.webp", "b.jpg"]  # beside the list, or from here
    Path("list.tsv").write_text("path\tx\nb.jpg\t1\n")
    assert names(lists=[Path("list.tsv")]) == ["b.jpg"]
    Path("bad.csv").write_text("name;n\nb.jpg;1\n")
    with pytest.raises(UnseenError, match=r'bad\.csv: no image column — name it "image"; the columns are name, n'):
        names(lists=[Path("bad.csv")])
    with pytest.raises(UnseenError, match=r"none\.txt: no such file"):
        names(lists=[Path("none.txt")])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["sep=;\npicture;image\n1;b.jpg\n2;b\\2.jpg\n", "image\tn\nb.jpg\t1\nb/2.jpg\t2\n"])
def test_lists_of_windows(images, encoding, text):
    Path("list.csv").write_bytes(text.encode(encoding))
    assert names(lists=[Path("list.csv")]) == ["b.jpg", "b/2.jpg"]
    Path("list.txt").write_bytes("b.jpg\r\nb\\2.jpg\r\n".encode(encoding))
    assert names(lists=[Path("list.txt")]) == ["b.jpg", "b/2.jpg"]


def test_standard_input_is_read_once_and_found_again(images, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(b"b.jpg\ngone.jpg\n\nodd")

    monkeypatch.setattr(finding.sys, "stdin", Stdin)
    found = FoundImages(["-", "odd"])
    assert [str(p) for p in found] == ["b.jpg", "gone.jpg", "odd", "odd"]
    assert list(found) == list(found)


def test_paths_on_standard_input_may_be_quoted_or_of_windows(images, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(b'"b.jpg"\r\nb\\2.jpg\r\n"gone.jpg"\r\n')

    monkeypatch.setattr(finding.sys, "stdin", Stdin)
    assert [str(p) for p in FoundImages(["-"])] == ["b.jpg", "b/2.jpg", '"gone.jpg"']


def test_it_is_lazy(images, monkeypatch):
    read = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: read.append(folder) or real(folder))
    assert next(iter(FoundImages(["."]))) == Path("a/x/1.webp")
    assert read == [".", "./a", "./a/x"]


def test_a_list_of_damaged_utf_16_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("one.jpg\ntwo.jpg\n".encode("utf-16-le") + b"\r")
    with pytest.raises(DataError, match=r"list\.txt: not utf-16-le text — save it again as UTF-8"):
        list(FoundImages([], [path]))
