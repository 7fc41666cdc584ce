"""Class tables out of ``att_splits.mat``, generated in the release's form and the real one of Oxford Flowers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io

from places import DATA
from unseen.data.folder import load_folder
from unseen.errors import DataError
from unseen.formats.xlsa17 import read_class_table
from unseen.vectors.sources import attribute_vectors

VALUES = np.array([[0.6, 0.0, 1.0], [0.8, 1.0, 0.0]])  # attributes x classes


def cells(*names):
    column = np.empty((len(names), 1), dtype=object)
    column[:, 0] = names
    return column


def write(path, **content):
    scipy.io.savemat(path, content)
    return path


def test_names_values_and_seen_flags(tmp_path):
    path = write(tmp_path / "att_splits.mat", att=VALUES, allclasses_names=cells("010.owl", "007.auk", "tit"))
    table = read_class_table(path, {"tit", "010.owl"})
    assert table.names == ("010.owl", "007.auk", "tit")
    assert table.seen.tolist() == [True, False, True]
    assert table.values.tolist() == VALUES.T.tolist()
    assert table.attributes.names == ("0001", "0002")


def test_original_values_go_before_unit_ones_and_numbers_stand_for_names(tmp_path):
    path = write(tmp_path / "att_splits.mat", att=VALUES, original_att=10 * VALUES)
    table = read_class_table(path, {"3"})
    assert table.names == ("1", "2", "3")
    assert table.values.tolist() == (10 * VALUES).T.tolist()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"other": VALUES}, "no K x N numbers"),
        ({"att": VALUES * np.nan}, "not a number"),
        ({"att": VALUES, "allclasses_names": cells("a", "b")}, "2 names for 3 classes"),
        ({"att": VALUES}, 'class "owl" of images.csv is missing'),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, content, problem):
    path = write(tmp_path / "att_splits.mat", **content)
    with pytest.raises(DataError, match=problem) as error:
        read_class_table(path, {"owl"} if "owl" in problem else set())
    assert str(error.value).startswith(str(path))


def test_other_files_are_named(tmp_path):
    path = tmp_path / "att_splits.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(300))
    with pytest.raises(DataError, match="not a valid MATLAB file"):
        read_class_table(path, set())


def test_a_folder_with_it_instead_of_classes_csv(tmp_path):
    (tmp_path / "images").mkdir()
    rows = ["file,class,split"]
    for number, split in [
        ("3", "trainval"),
        ("3", "test_seen"),
        ("1", "test_unseen"),
        ("4", "trainval"),
        ("2", "trainval"),
    ]:
        rows.append(f"{len(rows)}.jpg,{number},{split}")
        (tmp_path / "images" / f"{len(rows) - 1}.jpg").touch()
    (tmp_path / "images.csv").write_text("\n".join(rows))
    write(tmp_path / "att_splits.mat", att=np.eye(4))
    dataset = load_folder(tmp_path)
    assert dataset.table.seen.tolist() == [False, True, True, True]
    assert dataset.labels.tolist() == [2, 2, 0, 3, 1]
    label = attribute_vectors(dataset.table.attributes, dataset.attribute_vectors)[1]
    assert label == "random, learned (64-d)"  # names that are numbers say nothing


@pytest.mark.real_data
@pytest.mark.skipif(not (DATA / "flo64").is_dir(), reason="no real flowers (UNSEEN_DATA)")
def test_the_real_flowers():
    dataset = load_folder(DATA / "flo64")
    assert (len(dataset.table), int(dataset.table.seen.sum()), len(dataset.table.attributes)) == (102, 82, 1024)
    assert [len(dataset.indices(split)) for split in ("trainval", "test_seen", "test_unseen")] == [5631, 1403, 1155]
    assert np.allclose(np.linalg.norm(dataset.table.values, axis=1), 1)
