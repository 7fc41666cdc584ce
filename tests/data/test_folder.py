"""Every inconsistency of a dataset folder is one line that names file, row, column and hint."""

from __future__ import annotations

import hashlib
import pickle
import shutil

import numpy as np
import pytest

from unseen.data.checks import check_folder
from unseen.data.folder import add_missing_words, load_folder, missing_words, read_classes
from unseen.errors import DataError

CLASSES = '''class,seen,validation,size::big,"hue, at ""dusk"""
ant,1,0,1,0
bee,1,0,0,1
cat,1,1,2,1
"dog, big",0,0,1,3
'''
IMAGES = """file,class,split
a/1.jpg,ant,trainval
a/2.jpg,ant,test_seen
b/1.jpg,bee,trainval
b/2.jpg,bee,trainval
c/1.jpg,cat,trainval
"d/1, ""x"".jpg","dog, big",test_unseen
"""
ATTRIBUTES = '''attribute,group,part
"hue, at ""dusk""",hue,wing
size::big,size,
'''
PARTS = """file,part,x,y,visible
a/1.jpg,wing,10.5,20,1
b/1.jpg,bill,0,0,0
"""


@pytest.fixture
def folder(tmp_path):
    """A folder in which everything holds together."""
    root = tmp_path / "birds"
    files = ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "c/1.jpg", 'd/1, "x".jpg')
    for file in files:
        image = root / "images" / file
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    for name, text in (("classes", CLASSES), ("images", IMAGES), ("attributes", ATTRIBUTES), ("parts", PARTS)):
        (root / f"{name}.csv").write_text(text)
    np.save(root / "attribute_vectors.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    return root


def edit(folder, file, old, new):
    path = folder / file
    text = path.read_text()
    assert text.count(old) == 1, (text.count(old), old)
    path.write_text(text.replace(old, new))


def refused(folder, place, text):
    """Loading fails with one line that begins with the place and goes on with the problem; gives its hint."""
    with pytest.raises(DataError) as caught:
        load_folder(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder}/{place}: {text}" if place else f"{folder}: {text}"), message
    assert caught.value.hint
    assert message.endswith(f" — {caught.value.hint}")
    return caught.value.hint


def test_everything_is_read(folder):
    data = load_folder(folder)
    assert data.name == "birds"
    assert data.table.names == ("ant", "bee", "cat", "dog, big")
    assert data.table.attributes.names == ("size::big", 'hue, at "dusk"')
    assert data.table.attributes.groups == ("size", "hue")
    assert data.table.attributes.parts == ("", "wing")
    np.testing.assert_array_equal(data.table.values, [[1, 0], [0, 1], [2, 1], [1, 3]])
    np.testing.assert_array_equal(data.table.seen, [True, True, True, False])
    np.testing.assert_array_equal(data.table.validation, [False, False, True, False])
    assert data.files[-1] == 'd/1, "x".jpg'
    np.testing.assert_array_equal(data.labels, np.array([0, 0, 1, 1, 2, 3], np.int64), strict=True)
    assert list(data.split) == ["trainval", "test_seen", *["trainval"] * 3, "test_unseen"]
    np.testing.assert_array_equal(data.attribute_vectors, np.array([[0.0, 1, 2], [3, 4, 5]]), strict=True)
    parts = data.part_positions
    assert list(parts["x"]) == [10.5, 0.0]
    assert list(parts["visible"]) == [True, False]
    assert data.paths()[0] == folder / "images" / "a/1.jpg"
    assert data.warnings == ()
    assert load_folder(folder, "mine").name == "mine"


def test_the_optional_files_are_optional(folder):
    whole = load_folder(folder)
    for file in ("attributes.csv", "parts.csv", "attribute_vectors.npy"):
        (folder / file).unlink()
    data = load_folder(folder)
    assert data.attribute_vectors is None
    assert data.part_positions is None
    assert data.table.attributes.groups == ("size", 'hue, at "dusk"')
    assert data.fingerprint == whole.fingerprint


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_excel_files_are_read(folder, newline):
    plain = load_folder(folder).fingerprint
    for name in ("classes", "images", "attributes", "parts"):
        path = folder / f"{name}.csv"
        padded = path.read_text().replace(",trainval", " , trainval ") + "\n,,\n\n"
        path.write_bytes(b"\xef\xbb\xbf" + padded.replace("\n", newline).encode())
    assert load_folder(folder).fingerprint == plain


@pytest.mark.parametrize(
    ("file", "old", "new", "place", "text"),
    [
        # classes.csv
        ("classes.csv", "\nbee,", "\nant,", 'row 3, column "class"', '"ant" already appears in row 2'),
        ("classes.csv", "\nbee,", "\nAnt,", 'row 3, column "class"', '"Ant" and "ant" in row 2 differ only in '),
        ("classes.csv", "validation", "Seen", "row 1", 'columns "seen" and "Seen" differ only in case or spaces'),
        ("classes.csv", "\nbee,", "\n ,", 'row 3, column "class"', "the cell is blank"),
        ("classes.csv", "cat,1,1,2,1", "cat,1,1,inf,1", 'row 4, column "size::big"', '"inf" is not a finite number'),
        ("classes.csv", "cat,1,1,2,1", "cat,1,1,-inf,1", 'row 4, column "size::big"', '"-inf" is not a finite'),
        ("classes.csv", "cat,1,1,2,1", "cat,1,1,1e999,1", 'row 4, column "size::big"', '"1e999" is not a finite'),
        ("classes.csv", "cat,1,1,2,1", "cat,1,1,big,1", 'row 4, column "size::big"', '"big" is not a finite number'),
        ("classes.csv", "cat,1,1,2,1", 'cat,1,1,"2,,5",1', 'row 4, column "size::big"', '"2,,5" is not a finite'),
        ("classes.csv", "cat,1,1,2,1", "cat,1,1,v,w", 'row 4, column "size::big"', '"v" is not a finite number (and 1'),
        ("classes.csv", "cat,1,1,2,1", "cat,maybe,1,2,1", 'row 4, column "seen"', '"maybe" is not 1 or 0'),
        ("classes.csv", "cat,1,1,2,1", "cat,,1,2,1", 'row 4, column "seen"', '"" is not 1 or 0'),
        ("classes.csv", "cat,1,1,2,1", "cat,1,2,2,1", 'row 4, column "validation"', '"2" is not 1 or 0'),
        ("classes.csv", "cat,1,1,2,1", "cat,1,1,0,0", "row 4", 'class "cat" has only zeros as attributes'),
        ("classes.csv", "cat,1,1,2,1", "cat,1,1,2", "row 4", "4 cells for 5 columns"),
        ("classes.csv", "cat,1,1,2,1", "cat,1,1,2,1,7", "row 4", "6 cells for 5 columns"),
        ("classes.csv", "\ncat,", "\n\ncat,", "row 4", "the row is blank"),
        ("classes.csv", "\ncat,", "\n,,,,\ncat,", "row 4", "the row is blank"),
        ("classes.csv", "cat,1,1,2,1", '"cat,1,1,2,1', "row 4", "',' expected after '\"'"),
        ("classes.csv", '"dog, big"', '"dog, big', "row 5", "unexpected end of data — fix the quotes"),
        ("classes.csv", 'big",0,0', 'big",0,1', 'row 5, column "validation"', 'validation class "dog, big" is unseen'),
        ("classes.csv", "class,seen", "klass,seen", "row 1", 'no column "class"'),
        ("classes.csv", "validation", "seen", "row 1", 'column "seen" appears twice'),
        ("classes.csv", "validation", "size::big", "row 1", 'column "size::big" appears twice'),
        ("classes.csv", "validation", " ", "row 1", "column 3 has no name"),
        # images.csv
        ("images.csv", "a/2.jpg", "a/1.jpg", 'row 3, column "file"', '"a/1.jpg" already appears in row 2'),
        ("images.csv", "a/2.jpg", "b/../a/1.jpg", 'row 3, column "file"', '"b/../a/1.jpg" is already the image of'),
        ("images.csv", "a/2.jpg", "", 'row 3, column "file"', "the cell is blank"),
        ("images.csv", "a/2.jpg", "a/3.jpg", 'row 3, column "file"', 'no image "a/3.jpg" in '),
        ("images.csv", "a/2.jpg", "a", 'row 3, column "file"', 'no image "a" in '),
        ("images.csv", "a/2.jpg", "x" * 300, 'row 3, column "file"', 'no image "xxx'),
        ("images.csv", "a/2.jpg", "../images.csv", 'row 3, column "file"', '"../images.csv" lies outside'),
        ("images.csv", "a/2.jpg", "/etc/passwd", 'row 3, column "file"', '"/etc/passwd" lies outside'),
        ("images.csv", "2.jpg,ant", "2.jpg,Aunt", 'row 3, column "class"', 'class "Aunt" is not in classes.csv'),
        ("images.csv", "2.jpg,ant", "2.jpg,", 'row 3, column "class"', 'class "" is not in classes.csv'),
        ("images.csv", "test_seen", "test", 'row 3, column "split"', 'unknown split "test"'),
        ("images.csv", "test_seen", "test_unseen", "row 3 (a/2.jpg)", 'an image of the seen class "ant" has split'),
        ("images.csv", "test_unseen", "trainval", 'row 7 (d/1, "x".jpg)', 'an image of the unseen class "dog'),
        ("images.csv", "test_unseen", "test_seen", 'row 7 (d/1, "x".jpg)', 'an image of the unseen class "dog'),
        ("images.csv", "ant,test_seen", "ant", "row 3", "2 cells for 3 columns"),
        ("images.csv", "file,class", "file,kind", "row 1", 'no column "class"'),
        # the optional files
        ("attributes.csv", "size::big,", "size::bag,", "", 'attribute "size::big" of the class table has no row'),
        ("attributes.csv", "size::big,size,", "size::big,size,\nx,x,", 'row 4, column "attribute"', "the class"),
        ("attributes.csv", "size::big,size,", "size::big,size,\nsize::big,,", 'row 4, column "attribute"', '"size:'),
        ("attributes.csv", "attribute,", "name,", "row 1", 'no column "attribute"'),
        ("parts.csv", "b/1.jpg", "b/9.jpg", 'row 3, column "file"', '"b/9.jpg" is not in images.csv'),
        ("parts.csv", "10.5", "left", 'row 2, column "x"', '"left" is not a finite number'),
        ("parts.csv", ",0,0,0", ",0,0,?", 'row 3, column "visible"', '"?" is not 1 or 0'),
        ("parts.csv", "part,x", "part,u", "row 1", 'no column "x"'),
    ],
)  # fmt: skip
def test_a_wrong_cell_is_named(folder, file, old, new, place, text):
    edit(folder, file, old, new)
    refused(folder, f"{file}, {place}" if place else file, text)


def test_rows_count_as_in_a_spreadsheet(folder):
    """A cell of two lines is one row there."""
    edit(folder, "classes.csv", "bee", '"be\ne"')
    edit(folder, "classes.csv", "cat,1,1,2", "cat,1,1,two")
    refused(folder, 'classes.csv, row 4, column "size::big"', '"two" is not a finite number')


def test_missing_images_are_counted(folder):
    (folder / "images/a/2.jpg").unlink()
    (folder / "images/b/2.jpg").unlink()
    hint = refused(folder, 'images.csv, row 3, column "file"', f'no image "a/2.jpg" in {folder}/images (and 1 more)')
    assert hint == "add the image, or remove the row"


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    (tmp_path / "secret").touch()
    (folder / "images/a/2.jpg").unlink()
    (folder / "images/a/2.jpg").symlink_to(tmp_path / "secret")
    refused(folder, 'images.csv, row 3, column "file"', '"a/2.jpg" lies outside')


def test_the_image_folder_may_be_a_link(folder, tmp_path):
    (folder / "images").rename(tmp_path / "elsewhere")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    assert len(load_folder(folder).files) == 6


def test_a_seen_class_needs_training_images(folder):
    edit(folder, "images.csv", "cat,trainval", "cat,test_seen")
    refused(folder, "classes.csv, row 4", 'the seen class "cat" has no image in trainval')


def test_too_few_seen_classes(folder):
    edit(folder, "classes.csv", "cat,1,1", "cat,0,0")
    edit(folder, "images.csv", "cat,trainval", "cat,test_unseen")
    refused(folder, 'classes.csv, column "seen"', "2 seen classes — training needs at least 3")


@pytest.mark.parametrize("file", ["classes.csv", "images.csv", "attributes.csv", "parts.csv"])
def test_empty_files(folder, file):
    for text in ("", "\n", " , \n\n"):
        (folder / file).write_text(text)
        refused(folder, file, "the file is empty")


def test_headers_without_rows(folder):
    for file, text in (("images.csv", "no images"), ("classes.csv", "no classes")):
        (folder / file).write_text((folder / file).read_text().splitlines()[0])
        refused(folder, file, text)


def test_a_missing_class_table(folder):
    (folder / "classes.csv").unlink()
    refused(folder, "classes.csv", "no such file — create it with columns ")


def test_missing_folder(folder):
    refused(folder / "nowhere", "", "no such folder — pass a folder with images and a class table")
    refused(folder / "classes.csv", "", f"a file, not a folder — pass its folder: {folder}")


def test_no_attribute_columns(folder):
    (folder / "classes.csv").write_text("class,seen\nant,1\n")
    refused(folder, "classes.csv", "no attribute columns")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_read(folder, separator):
    plain = load_folder(folder)
    text = "class,seen,validation,size::big,hue\nant,1,0,1.0,0\nbee,1,0,0,1\ncat,1,1,2,1\n{},0,0,1,3\n"
    text = text.replace(",", separator).replace("1.0", "1,0").format('"dog, big"')
    (folder / "classes.csv").write_text(text)
    (folder / "attributes.csv").unlink()
    data = load_folder(folder)
    assert data.table.names == plain.table.names
    np.testing.assert_array_equal(data.table.values, plain.table.values)


@pytest.mark.parametrize(
    ("encoding", "place", "text"),
    [
        ("latin-1", "classes.csv, row 3", "byte 64 is not UTF-8"),
        ("utf-16-le", "classes.csv", "the file contains NUL characters"),
    ],
)
def test_other_encodings_are_refused(folder, encoding, place, text):
    changed = CLASSES.replace("bee", "béé") if encoding == "latin-1" else CLASSES
    (folder / "classes.csv").write_bytes(changed.encode(encoding))
    assert refused(folder, place, text) == 'save it as "CSV UTF-8"'


def test_twins_and_blank_vectors_are_warned_of(folder):
    edit(folder, "classes.csv", 'big",0,0,1,3', 'big",0,0,6,3')
    np.save(folder / "attribute_vectors.npy", [[0, 0], [0, 1]])
    assert load_folder(folder).warnings == (
        '"cat" and "dog, big" have the same attributes and cannot be separated',
        'the word vector of "size::big" is all zero',
    )


# attribute_vectors.npy


@pytest.mark.parametrize(
    ("array", "place", "text"),
    [
        (np.ones((3, 2)), "", "float64 array of shape (3, 2) — save an array of 2 x D numbers"),
        (np.ones(2), "", "float64 array of shape (2,)"),
        (np.ones((2, 0)), "", "float64 array of shape (2, 0)"),
        (np.ones((2, 3), complex), "", "complex128 array of shape (2, 3)"),
        (np.array([["a"], ["b"]]), "", "<U1 array of shape (2, 1)"),
        (np.array([[1, 2], [np.nan, 0]]), ', row 1 ("hue, at "dusk"")', "a value is not finite"),
        (np.array([[np.inf, 2], [1, 0]], np.float32), ', row 0 ("size::big")', "a value is not finite"),
    ],
)
def test_wrong_vectors(folder, array, place, text):
    np.save(folder / "attribute_vectors.npy", array)
    refused(folder, f"attribute_vectors.npy{place}", text)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_is_never_opened(folder, tmp_path):
    sprung = tmp_path / "sprung"
    path = folder / "attribute_vectors.npy"
    np.save(path, np.array([[Trap(sprung)], [1]], dtype=object), allow_pickle=True)
    refused(folder, "attribute_vectors.npy", "not a plain NumPy array")
    path.write_bytes(pickle.dumps(Trap(sprung)))
    refused(folder, "attribute_vectors.npy", "not a plain NumPy array")
    assert not sprung.exists()
    pickle.loads(path.read_bytes()).close()
    assert sprung.exists()  # so the trap works


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"PK\x03\x04 not a zip",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8'(((",
        b"\x93NUMPY\x01\x00\x46\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 10000000000000)}",
        b"\x93NUMPY\x01\x00\x37\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}" + b"\0" * 12,
        bytes(range(256)) * 8,
    ],
)
def test_damaged_vectors(folder, content):
    (folder / "attribute_vectors.npy").write_bytes(content)
    refused(folder, "attribute_vectors.npy", "not a plain NumPy array")


def test_an_npz_is_no_npy(folder):
    with (folder / "attribute_vectors.npy").open("wb") as file:
        np.savez(file, np.ones((2, 3)))
    refused(folder, "attribute_vectors.npy", "not a plain NumPy array")


def test_cub50(real_data):
    """The counts that the data came with."""
    data = load_folder(real_data / "cub50")
    assert data.describe() | {"fingerprint": ""} == {
        "name": "cub50",
        "classes_seen": 40,
        "classes_unseen": 10,
        "attributes": 312,
        "trainval": 1837,
        "test_seen": 460,
        "test_unseen": 592,
        "fingerprint": "",
    }
    assert data.attribute_vectors.shape == (312, 300)
    assert data.warnings == ()
    assert len(data.files) == 2889
    assert set(data.part_positions["file"]) <= set(data.files)
    table = data.table
    albatross = table.values[table.index("001.Black_footed_Albatross")]
    np.testing.assert_array_equal(albatross[:3], [0.0, 2.9197, 1.4599])
    assert len(table.attributes.by_group()) == 28


# class folders and words


SPECIES = ("red fox", "wolf", "bear", "lynx")


@pytest.fixture
def own(tmp_path):
    """Class folders and a spreadsheet of words, as a person has them: three classes with 20 images, one without."""
    root = tmp_path / "animals"
    for name in SPECIES[:3]:
        for i in range(20):
            image = root / "images" / name / f"{i}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
    (root / "classes.csv").write_text(
        "class,fur,size,striped\n"
        "red fox,red; white,small,no\nwolf,grey,medium,no\nbear,brown,large,yes\nlynx,grey,,yes\n"
    )
    return root


def test_class_folders_and_words(own):
    data = load_folder(own)
    assert data.table.names == SPECIES
    assert list(data.table.seen) == [True, True, True, False]
    assert data.table.attributes.names == (
        *("fur::brown", "fur::grey", "fur::red", "fur::white"),
        *("size::small", "size::large", "striped"),
    )
    np.testing.assert_array_equal(data.table.values[0], [0, 0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(data.table.values[3], [0, 1, 0, 0, 0.5, 0.5, 1])
    assert len(data.files) == 60
    assert data.encoding is not None
    assert data.encoding.names == data.table.attributes.names
    assert data.warnings == ('1 blank cell gets the column mean ("size" 1)',)
    assert data.files[0] == "bear/0.jpg"
    assert set(data.split) == {"trainval", "test_seen"}
    assert [data.table.names[c] for c in data.labels[[0, 59]]] == ["bear", "wolf"]


def test_folders_that_lose_or_mix_images_are_told(own):
    """Each was once silent: a class was unseen for lack of images, or images counted for another class."""
    (own / "images/lynx").mkdir()
    (own / "Wolf").mkdir()
    (own / "stray.png").touch()
    (own / "images/wolf/@eaDir").mkdir()
    (own / "images/wolf/@eaDir/0.jpg").touch()
    data = load_folder(own)
    assert list(data.table.seen) == [True, True, True, False]
    assert len(data.files) == 60
    assert data.warnings[1:] == (
        "1 class folder without images, so unseen classes: lynx",
        "not used, because outside images/: Wolf/, stray.png",
    )
    (own / "images/red fox/Wolf").mkdir()
    (own / "images/red fox/Wolf/1.jpg").touch()
    refused(own, "images/red fox/Wolf", '"red fox/Wolf/1.jpg" is in the folders of two classes')
    (own / "images/red fox/Wolf").rename(own / "images/red fox/Red_Fox")  # of the same class
    assert (load_folder(own).labels == 0).sum() == 21


def test_a_class_whose_name_hides_its_folder(own):
    (own / "images/bear").rename(own / "images/.bear")
    table = own / "classes.csv"
    table.write_text(table.read_text().replace("bear", ".bear"))
    refused(own, "images/.bear", "the folder of a class is hidden by its name")


def test_classes_that_do_not_differ_are_refused_before_training(own):
    (own / "classes.csv").write_text("class,a,b\nbear,1,2\nred fox,2,4\nwolf,3,6\nlynx,1,0\n")
    text = "the 3 seen classes all have the same attributes, so nothing can be learned"
    (own / "attributes.csv").write_text("attribute,scale\na,as is\nb,as is\n")
    refused(own, "classes.csv", text)
    assert text in [f.what for f in check_folder(own).of("error")]


def test_the_drawn_split_holds_when_images_come(own):
    """An image's name alone decides, and a new image moves no other."""
    before = load_folder(own)
    held = [f for f, s in zip(before.files, before.split, strict=True) if s == "test_seen"]
    draws = {f: int(hashlib.sha256(f.encode()).hexdigest()[:16], 16) / 2**64 for f in before.files}
    assert held == [f for f in before.files if draws[f] < 0.2]
    assert 5 < len(held) < 20
    for i in range(20, 30):
        (own / "images/bear" / f"{i}.jpg").touch()
    after = dict(zip((data := load_folder(own)).files, data.split, strict=True))
    assert [f for f in before.files if after[f] == "test_seen"] == held
    for i in range(3, 30):
        (own / "images/bear" / f"{i}.jpg").unlink()
    few = load_folder(own)
    assert list(few.split[few.labels == 2]) == ["trainval"] * 3


def test_folders_are_matched_as_people_write_them(own):
    (own / "images/red fox").rename(own / "images/Red_Fox")
    (own / "images/bear/deep").mkdir()
    (own / "images/bear/1.jpg").rename(own / "images/bear/deep/1.JPG")
    (own / "images/bear/.DS_Store").touch()
    (own / "images/bear/notes.txt").touch()
    data = load_folder(own)
    assert data.warnings[1] == 'folder "Red_Fox" is read as class "red fox"'
    assert len(data.files) == 60
    assert "bear/deep/1.JPG" in data.files


def test_classes_of_images_are_matched_as_people_write_them(folder):
    plain = load_folder(folder)
    edit(folder, "images.csv", "2.jpg,ant", "2.jpg,  ANT ")
    edit(folder, "images.csv", '"dog, big",test', '"Dog,  big",test')
    data = load_folder(folder)
    assert data.fingerprint == plain.fingerprint
    assert data.warnings == (
        'class "ANT" in images.csv is read as "ant"',
        'class "Dog,  big" in images.csv is read as "dog, big"',
    )


def test_labels_that_contradict_the_folders_are_noted(own):
    """As after sorting one column of the list alone."""
    rows = [f"{name}/{i}.jpg,{name}" for name in SPECIES[:3] for i in range(20)]
    (own / "images.csv").write_text("\n".join(["file,class", *rows]))
    assert len(load_folder(own).warnings) == 1
    rows[0], rows[21] = "red fox/0.jpg,bear", "wolf/1.jpg,Red_Fox"
    (own / "images.csv").write_text("\n".join(["file,class", *rows]))
    data = load_folder(own)
    assert (data.table.names[data.labels[0]], len(data.files)) == ("bear", 60)
    assert (
        'images.csv, row 2, column "class": "red fox/0.jpg" is listed as "bear", but is in the folder of "red fox" '
        "(and 1 more image like this)"
    ) in data.warnings


def test_a_name_that_fits_two_classes_fits_none(folder):
    edit(folder, "classes.csv", "\nbee,", "\na-nt,")
    edit(folder, "classes.csv", "\nant,", "\na nt,")
    (folder / "images.csv").write_text(IMAGES.replace(",bee", ",a-nt").replace(",ant", ",a nt"))
    assert list(load_folder(folder).labels) == [0, 0, 1, 1, 2, 3]
    edit(folder, "images.csv", "2.jpg,a nt", "2.jpg,A_nt")
    refused(folder, 'images.csv, row 3, column "class"', 'class "A_nt" is not in classes.csv')


def test_a_missing_column_is_said_to_have_another_name(own, folder):
    """By what the cells hold: names of folders before words that are all different, names of classes, files."""
    rows = (own / "classes.csv").read_text().splitlines()
    lines = ["kind,nick," + rows[0].partition(",")[2]]
    lines += [f"{row.partition(',')[0]},n{i}x," + row.partition(",")[2] for i, row in enumerate(rows[1:])]
    (own / "classes.csv").write_text("\n".join(lines))
    hint = refused(own, "classes.csv, row 1", 'no column "class"')
    assert hint == 'rename the column "kind" to "class"? It holds the names of folders of images'
    shutil.rmtree(own / "images")
    edit(own, "classes.csv", "kind,nick", "nick,kind")
    hint = refused(own, "classes.csv, row 1", 'no column "class"')
    assert hint == 'rename the column "nick" to "class"? It holds words that are all different'
    edit(folder, "images.csv", "file,class", "f,class")
    assert refused(folder, "images.csv, row 1", 'no column "file"') == (
        'rename the column "f" to "file"? It holds names of images'
    )
    edit(folder, "images.csv", "f,class", "file,kind")
    assert refused(folder, "images.csv, row 1", 'no column "class"') == (
        'rename the column "kind" to "class"? It holds names of classes.csv'
    )
    (folder / "classes.csv").write_text("size,weight\n1,2\n2,3\n")
    assert refused(folder, "classes.csv, row 1", 'no column "class"') == "columns needed: class; it has size, weight"


def test_class_folders_without_a_folder_of_images(own):
    for name in SPECIES[:3]:
        (own / "images" / name).rename(own / name)
    (own / "images").rmdir()
    (own / "drafts").mkdir()
    (own / "drafts/x.jpg").touch()
    data = load_folder(own)
    assert data.images == own
    assert len(data.files) == 60


def test_the_usual_words_for_a_split_are_told_the_ones_here(folder):
    edit(folder, "images.csv", "test_seen", "Test")
    hint = "use one of trainval, test_seen, test_unseen: here test_seen, and test_unseen for classes without "
    assert refused(folder, 'images.csv, row 3, column "split"', 'unknown split "Test"').startswith(hint)


def test_an_image_that_is_listed_twice_is_said_once(folder):
    edit(folder, "images.csv", "a/2.jpg", "a/1.jpg")
    said = [f.what for f in check_folder(folder).of("error") if "already" in f.what]
    assert said == ['"a/1.jpg" already appears in row 2']


def test_a_folder_of_no_class(own):
    (own / "images/wolf").rename(own / "images/wolff")
    hint = refused(own, "images/wolff", "no class has this name in classes.csv")
    assert hint == 'did you mean "wolf"? Otherwise add the class to the table'


def test_loose_images_and_none_at_all(own):
    (own / "images/stray.jpg").touch()
    hint = refused(own, "images", "images outside the class folders")
    assert hint.endswith(", or list them in images.csv with columns file and class")
    (own / "labels.tsv").write_text("filename\tlabel\nstray.jpg\twolf\n")
    hint = refused(own, "images", "images outside the class folders")
    assert hint == 'if "labels.tsv" lists their classes, rename it to images.tsv'
    (own / "labels.tsv").rename(own / "etiquettes.csv").write_text("Fichier;Espèce\nimages\\stray.JPG;wolf\n")
    (own / "parts.csv").write_text("file,part,x,y\nstray.jpg,ear,3,4\n")
    hint = refused(own, "images", "images outside the class folders")
    assert hint == 'if "etiquettes.csv" lists their classes, rename it to images.csv'
    shutil.rmtree(own / "images")
    (own / "images").mkdir()
    refused(own, "images", "no folder in images/ has the name of a class")


def test_links_out_of_class_folders_are_refused(own, tmp_path):
    (tmp_path / "elsewhere.jpg").touch()
    (own / "images/bear/link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    refused(own, "images/bear/link.jpg", '"bear/link.jpg" lies outside')
    (own / "images/bear/link.jpg").unlink()
    (own / "images/bear/again").symlink_to(own / "images/bear")
    (own / "images/bear/0link.jpg").symlink_to(own / "images/bear/0.jpg")
    refused(own, "images/bear/0link.jpg", '"bear/0link.jpg" is already the image of "bear/0.jpg"')


def test_seen_may_be_said(own):
    text = (own / "classes.csv").read_text()
    header, *rows = text.splitlines()
    (own / "classes.csv").write_text("\n".join([header + ",Seen", *(r + ",yes" for r in rows)]))
    refused(own, "classes.csv, row 5", 'the seen class "lynx" has no image in trainval')
    (own / "images/lynx").mkdir()
    (own / "images/lynx/1.jpg").touch()
    (own / "classes.csv").write_text("\n".join([header + ",Seen", *(r + ",yes" for r in rows[:3]), rows[3] + ",no"]))
    data = load_folder(own)
    assert [s for f, s in zip(data.files, data.split, strict=True) if f.startswith("lynx")] == ["test_unseen"]


def test_a_table_of_images_without_splits(own):
    rows = [f"images/{name}/{i}.jpg,{name}" for name in SPECIES[:3] for i in range(20)]
    (own / "images.csv").write_text("Filename,Species\n" + "\n".join(rows))
    listed, folders = load_folder(own), None
    (own / "images.csv").unlink()
    folders = load_folder(own)
    assert dict(zip(listed.files, listed.split, strict=True)) == dict(zip(folders.files, folders.split, strict=True))


def test_an_excel_table_with_a_sheet_about_the_attributes(own):
    import openpyxl

    book = openpyxl.Workbook()
    for line in (own / "classes.csv").read_text().splitlines():
        book.active.append(line.split(","))
    sheet = book.create_sheet("attributes")
    sheet.append(["attribute", "group", "part", "scale"])
    sheet.append(["fur", None, "body", None])
    values = load_folder(own).table.values
    (own / "classes.csv").unlink()
    book.save(own / "classes.xlsx")
    data = load_folder(own)
    np.testing.assert_array_equal(data.table.values, values)
    assert data.table.attributes.parts == ("body",) * 4 + ("",) * 3
    sheet.append(["furr", None, None, None])
    book.save(own / "classes.xlsx")
    where = 'classes.xlsx, sheet "attributes", row 3, column "attribute"'
    assert refused(own, where, 'the class table has no column "furr"').endswith('did you mean "fur"?')


def test_plain_tables_keep_their_fingerprint(folder):
    """As it was before spreadsheets of words were read."""
    assert load_folder(folder).fingerprint == "700b96fd9393a11e"


def test_a_taxonomic_class_column_is_one_line(own):
    (own / "classes.csv").write_text(
        "class,scientificName,legs\nAves,Turdus merula,2\nAves,Parus major,2\nAves,Corvus corax,2\n"
    )
    errors = []
    read_classes(own, errors.extend)
    (line,) = map(str, errors)
    assert line.endswith(
        'seems to be the taxonomic class — rename it, and rename the column "scientificName" to "class"'
    )
    assert 'column "class"' in line


@pytest.mark.parametrize("name", ["unknown", "Seen"])
def test_a_class_called_like_an_answer(folder, name):
    edit(folder, "classes.csv", "bee,", f"{name},")
    edit(folder, "images.csv", "b/1.jpg,bee", f"b/1.jpg,{name}")
    edit(folder, "images.csv", "b/2.jpg,bee", f"b/2.jpg,{name}")
    wanted = f'classes.csv, row 3, column "class": "{name}" is reserved for answers and cannot be a class name'
    with pytest.raises(DataError, match=wanted):
        load_folder(folder)
    assert wanted.split(": ", 1)[1] in [f.what for f in check_folder(folder).of("error")]


def test_leading_zeros_that_a_spreadsheet_dropped(folder):
    for file in ("classes.csv", "images.csv"):
        text = (folder / file).read_text()
        (folder / file).write_text(text.replace("ant,", "007,"))
    assert load_folder(folder).table.names[0] == "007"
    edit(folder, "images.csv", "a/1.jpg,007", "a/1.jpg,7")
    with pytest.raises(DataError) as caught:
        load_folder(folder)
    assert 'images.csv, row 2, column "class": ' in str(caught.value)
    assert str(caught.value).endswith(
        'write "007" instead of "7": spreadsheet programs drop leading zeros unless the column is formatted as text'
    )


@pytest.mark.parametrize("name", ["seen", "validation"])
def test_an_attribute_that_is_called_like_a_column_of_the_table(own, name):
    (own / "classes.csv").write_text(f"class,{name},legs\ncat,often,2\ndog,never,3\nemu,often,4\n")
    errors = []
    read_classes(own, errors.extend)
    wanted = f'use 1 or 0; "{name}" is a reserved column name; rename the column if it is an attribute'
    assert any(str(error).endswith(f'row 2, column "{name}": "often" is not 1 or 0 — {wanted}') for error in errors)


def test_a_folders_own_words_for_not_known(own):
    (own / "missing.txt").write_text("keine Angabe\n")
    assert missing_words(own) == ("keine Angabe",)
    add_missing_words(own, [" -9 ", "keine Angabe", ""])
    assert missing_words(own) == ("keine Angabe", "-9")


def test_rows_of_errors_count_the_hidden_ones(own):
    from openpyxl import Workbook

    book = Workbook()
    for line in (own / "classes.csv").read_text().splitlines():
        book.active.append(line.split(","))
    book.active.append(["red fox", "red", "small", "no"])
    book.active.row_dimensions[3].hidden = True
    (own / "classes.csv").unlink()
    book.save(own / "classes.xlsx")
    errors = []
    read_classes(own, errors.extend)
    assert [(e.problem.split(" already")[0], e.where.split(", row ")[1]) for e in errors][:1] == [
        ('"red fox"', '6, column "class"')
    ]
