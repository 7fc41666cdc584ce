"""The field's file formats: MATLAB 5 and 7.3 give the same, pickles run nothing, HDF5 is read in pieces."""

from __future__ import annotations

import io
import os
import pickle
import struct

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from tiny_benchmarks import cells, save_v73
from unseen.errors import DataError
from unseen.formats.matlab import mat_shapes, read_mat, texts, whole_numbers
from unseen.formats.pickles import read_array, read_pickle
from unseen.formats.region_hdf5 import RegionFile
from unseen.formats.res101 import ImageList, read_features

CONTENT = {
    "table": np.arange(6.0).reshape(2, 3),
    "rows": np.array([[3], [1], [2]], dtype=np.uint16),
    "one": np.array([[7.0]]),
    "names": cells(["antelope", "grizzly+bear", "x"]),
    "word": "flowers",
    "nested": cells(["a", np.eye(2)]),
}


@pytest.mark.parametrize("v73", [False, True], ids=["v5", "v7.3"])
def test_both_versions_of_matlab_give_the_same(tmp_path, v73):
    path = tmp_path / "x.mat"
    save_v73(path, CONTENT) if v73 else scipy.io.savemat(path, CONTENT)
    found = read_mat(path)
    assert set(found) == set(CONTENT)
    for name in ("table", "rows", "one"):
        assert found[name].shape == CONTENT[name].shape
        assert found[name].dtype == CONTENT[name].dtype
        assert (found[name] == CONTENT[name]).all()
    assert found["word"] == "flowers"
    assert found["names"].shape == (3, 1)
    assert texts(found["names"], "names", path) == ("antelope", "grizzly+bear", "x")
    assert (found["nested"][1, 0] == np.eye(2)).all()
    assert list(read_mat(path, ["rows"])) == ["rows"]
    assert mat_shapes(path)["table"] == (2, 3)
    assert whole_numbers(found["rows"], "rows", path).tolist() == [3, 1, 2]


def test_what_is_no_array_is_left_out(tmp_path):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"s": {"a": 1}, "sparse": scipy.sparse.eye_array(3).tocsc(), "kept": np.eye(2)})
    assert list(read_mat(path)) == ["kept"]


@pytest.mark.parametrize(
    "content", [b"", b"hello" * 40, b"MATLAB 5.0 MAT-file" + bytes(300), b"\x89HDF\r\n\x1a\n" + b"x" * 900]
)
def test_what_is_no_matlab_file_is_one_line(tmp_path, content):
    path = tmp_path / "x.mat"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a valid MATLAB file") as error:
        read_mat(path)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="no such file"):
        read_mat(tmp_path / "y.mat")


def test_names_and_rows_must_be_what_they_are_called(tmp_path):
    with pytest.raises(DataError, match="`names` is not a cell array of names"):
        texts(np.eye(2), "names", tmp_path)
    for value in (np.eye(2), "word", np.array([[1.5]]), np.array([[np.nan]])):
        with pytest.raises(DataError, match="`loc`"):
            whole_numbers(value, "loc", tmp_path)


def pickled(path, value, protocol=3):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_out_of_pickles_of_every_protocol(tmp_path, protocol):
    arrays = {
        "a": np.random.default_rng(0).normal(size=(3, 4)),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(4, dtype=">i4"),
        "flags": np.array([True, False]),
        "scalar": np.float32(1.5),
        "list": [1, 2.5, "x", None, (3,)],
        "empty": np.zeros((0, 5)),
    }
    found = read_pickle(pickled(tmp_path / "x.pkl", arrays, protocol))
    for name in ("a", "f", "big", "flags", "empty"):
        assert found[name].shape == arrays[name].shape
        assert (found[name] == arrays[name]).all()
    assert found["scalar"] == 1.5
    assert found["list"] == arrays["list"]
    assert (read_array(pickled(tmp_path / "y.pkl", arrays["a"], protocol)) == arrays["a"]).all()


def test_a_pickle_of_python_2(tmp_path):
    """Text protocol 0 with the bytes of the array as a Latin-1 string, as numpy wrote it under Python 2."""
    raw = np.array([[1.0, 2.0]]).tobytes()
    data = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I1\nI2\ntcnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS"
        + repr(raw)[1:].encode()
        + b"\ntb."
    )
    (tmp_path / "x.pkl").write_bytes(data)
    assert read_array(tmp_path / "x.pkl").tolist() == [[1.0, 2.0]]


class Evil:
    def __reduce__(self):
        return os.system, ("exit 3",)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (Evil(), r"a pickle with (posix|nt)\.system, not only arrays — save the array with numpy.save"),
        ({"x": [Evil()]}, "system"),
        (np.array([{"a": 1}], dtype=object), 'elements of type "O8"|an array of objects'),
        (np.zeros(2, dtype=[("a", "f8")]), "a structured dtype|elements of type"),
        (np.array(["x"]), "elements of type"),
        ({1, 2}, "set"),
        (Exception("x"), "Exception"),
    ],
)
def test_a_pickle_of_anything_else_is_refused(tmp_path, value, problem):
    with pytest.raises(DataError, match=problem):
        read_pickle(pickled(tmp_path / "x.pkl", value))


def test_a_pickle_that_asks_for_memory_gets_none(tmp_path):
    """A shape of 8 terabytes with eight bytes of content, and an `_reconstruct` of that shape."""
    for shape in ((10**12,), (-1,)):
        honest = pickle.dumps(np.zeros(1), protocol=2)
        assert honest.count(b"K\x01\x85") >= 1
        size = b"\x8a\x08" + struct.pack("<q", shape[0]) + b"\x85"
        (tmp_path / "x.pkl").write_bytes(honest.replace(b"K\x01\x85", size))
        if shape[0] > 0:
            with pytest.raises(DataError, match="not a valid pickle"):
                read_pickle(tmp_path / "x.pkl")
    bomb = io.BytesIO()
    bomb.write(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L1000000000000L\ntS'b'\ntR.")
    (tmp_path / "x.pkl").write_bytes(bomb.getvalue())
    with pytest.raises(DataError, match="an array without content"):
        read_pickle(tmp_path / "x.pkl")
    with pytest.raises(DataError, match="more than 10"):
        read_pickle(pickled(tmp_path / "x.pkl", np.zeros(9)), limit=10)


def test_shared_lists_do_not_multiply(tmp_path):
    value = ["x"]
    for _ in range(60):
        value = [value, value]
    found = read_pickle(pickled(tmp_path / "x.pkl", value))
    assert found[0] is found[1]


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_torn_pickle_is_one_line(tmp_path, cut):
    path = pickled(tmp_path / "x.pkl", np.eye(9))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match="pickle"):
        read_pickle(path)


def test_only_a_table_is_an_array_of_vectors(tmp_path):
    for value, problem in ((np.zeros(3), r"an array of shape \(3,\)"), ({"a": 1}, "a dict instead of a table")):
        with pytest.raises(DataError, match=problem):
            read_array(pickled(tmp_path / "x.pkl", value))


def hdf5(path, first=0, **changes):
    rng = np.random.default_rng(0)
    content = {
        "feature_map": rng.normal(size=(6, 5, 2, 3)).astype(np.float32),
        "labels": np.array([0, 0, 1, 1, 2, 2]) + first,
        "trainval_loc": np.array([0, 2]) + first,
        "test_seen_loc": np.array([1, 3]) + first,
        "test_unseen_loc": np.array([4, 5]) + first,
        "att": np.ones((3, 4)),
        "original_att": np.arange(12.0).reshape(3, 4),
        "w2v_att": np.ones((4, 7)),
    } | changes
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is not None:
                file[name] = value
    return content


@pytest.mark.parametrize("first", [0, 1])
def test_region_features_are_read_in_pieces(tmp_path, first):
    content = hdf5(tmp_path / "x.hdf5", first)
    found = RegionFile.open(tmp_path / "x.hdf5")
    assert (found.count, found.channels, found.grid) == (6, 5, (2, 3))
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.rows["test_unseen"].tolist() == [4, 5]
    assert (found.values == content["original_att"]).all()
    assert found.vectors.shape == (4, 7)
    with found.reader() as read:
        block = read(2, 5)
    assert block.shape == (3, 6, 5)
    # region r = row * width + column
    assert (block[1, 1 * 3 + 2] == content["feature_map"][3, :, 1, 2]).all()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"feature_map": None}, "no `feature_map` — the file has att"),
        ({"labels": None}, "no `labels`"),
        ({"labels": np.zeros(5, int)}, "5 labels for 6 images"),
        ({"feature_map": np.zeros((6, 2, 3), np.float32)}, r"`feature_map` is float32 of shape \(6, 2, 3\)"),
        ({"trainval_loc": np.array([9])}, "rows from 1 to 9 for 6 images"),
    ],
)
def test_damaged_region_files_are_one_line(tmp_path, changes, problem):
    hdf5(tmp_path / "x.hdf5", **changes)
    with pytest.raises(DataError, match=problem):
        RegionFile.open(tmp_path / "x.hdf5")
    (tmp_path / "y.hdf5").write_bytes(b"no")
    with pytest.raises(DataError, match="not a valid HDF5 file"):
        RegionFile.open(tmp_path / "y.hdf5")


@pytest.mark.parametrize("v73", [False, True], ids=["v5", "v7.3"])
def test_pooled_features_are_one_region_each(tmp_path, v73):
    features = np.random.default_rng(0).normal(size=(4, 6))
    content = {
        "features": features,
        "labels": np.ones((6, 1)),
        "image_files": cells([f"a\\b{i}.jpg" for i in range(6)]),
    }
    path = tmp_path / "res101.mat"
    save_v73(path, content) if v73 else scipy.io.savemat(path, content)
    images = ImageList.read(path)
    assert images.files[5] == "a/b5.jpg"
    assert images.labels.tolist() == [0] * 6
    assert images.channels == 4
    with read_features(path) as read:
        assert np.allclose(read(2, 4)[:, 0], features[:, 2:4].T)
        assert read(4, 6).shape == (2, 1, 4)
