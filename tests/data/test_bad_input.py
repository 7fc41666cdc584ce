"""What fuzzing found, each once: a line instead of a traceback, a hang or a full memory."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import resource
import time
import tracemalloc
import zipfile

import h5py
import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unseen.classes.spreadsheets.tables import MOST_COLUMNS, read_table
from unseen.cli.configuring import parse_seeds
from unseen.data.checks import check_folder
from unseen.data.finding import FoundImages
from unseen.data.folder import load_folder, read_classes, stop
from unseen.errors import DataError, RunError, StoreError, UnseenError
from unseen.features import layout
from unseen.features.store import RegionStore, write_store
from unseen.formats import hdf5, res101
from unseen.formats.hdf5 import member
from unseen.formats.matlab import read_mat
from unseen.formats.pickles import read_pickle
from unseen.formats.region_hdf5 import RegionFile
from unseen.ground.files import read_json
from unseen.ground.tensors import save_tensors
from unseen.model.weights import load_weights, save_weights
from unseen.recognizer.runs import read_run
from unseen.training.checkpoints import read_info
from unseen.training.config import RunConfig
from unseen.vectors.word_files import open_word_file, read_word_vectors


@given(
    st.text(max_size=2000), st.one_of(st.none(), st.text(max_size=2000)), st.one_of(st.none(), st.text(max_size=2000))
)
@settings(max_examples=100, derandomize=True, deadline=None)
def test_an_error_is_a_line_that_can_be_printed(problem, where, hint):
    error = UnseenError(problem, where=where, hint=hint)
    assert str(error).replace("\u200c", "").replace("\u200d", "").isprintable()
    assert len(str(error)) < 10 * 1600  # an escape is up to ten characters
    assert error.problem == problem


def test_the_line_of_an_error_shows_what_cannot_be_seen():
    assert str(UnseenError("\x1b[31m a\nb \udcff é", where="x")) == "x: \\x1b[31m a b \\udcff é"
    assert str(UnseenError("x" * 10**6)) == "x" * 250 + " ... " + "x" * 250


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', "9" * 5000, '{"a": Infinity}', "{", "\ufeff{}"])
def test_json_that_is_none(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"x\.json: damaged .* — train again"):
        read_json(path, RunError, "train again")


# tables


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (",".join(f"a{i}" for i in range(MOST_COLUMNS + 1)) + "\n", "20,001 columns, more than 20,000"),
        ("," * 300_000 + "\nx\n", "row 1: the first row is blank"),
        ("\nclass,size\na,1\n", "row 1: the first row is blank"),
        ("a," * 15_000 + "\n", 'column "a" appears twice'),
    ],
)
def test_headers_that_are_none(tmp_path, text, problem):
    path = tmp_path / "classes.csv"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(DataError, match=problem):
        read_table(path)
    assert time.process_time() - began < 2


def workbook(**parts):
    book = openpyxl.Workbook()
    for row in (["class", "size"], ["a", 1], ["b", 2]):
        book.active.append(row)
    out = io.BytesIO()
    book.save(out)
    source = zipfile.ZipFile(out)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for name in source.namelist():
            content = source.read(name)
            for old, new in parts.items() if name == "xl/worksheets/sheet1.xml" else ():
                content = content.replace(old.encode(), new.encode())
            target.writestr(name, content)
    return made.getvalue()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('r="A2"', 'r="XFD1048576"', 'sheet "Sheet" extends to row 1,048,576, column 16,384'),
        (
            "</sheetData>",
            '</sheetData><mergeCells><mergeCell ref="A1:XFD1048576"/></mergeCells>',
            "A1:XFD1048576 of xl/worksheets/sheet1.xml are merged",
        ),
        ("</sheetData>", "</sheetData>" + " " * 2**27, "bytes unpacked, more than 134,217,728"),
    ],
)
def test_workbooks_that_would_fill_the_memory(tmp_path, old, new, problem):
    path = tmp_path / "classes.xlsx"
    path.write_bytes(workbook(**{old: new}))
    with pytest.raises(DataError, match=rf"classes\.xlsx: .*{problem}"):
        read_table(path)


def test_parquet_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "classes.parquet"
    pq.write_table(pa.table({"class": pa.array(["a"] * 2_000_001).dictionary_encode()}), path)
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match="2,000,001 rows of 1 column,"):
        read_table(path)


# folders


@pytest.fixture
def birds(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "classes.csv").write_text("class,size,crest\n" + "".join(f"b{i},{i + 1},{9 - i}\n" for i in range(4)))
    for i in range(4):
        (tmp_path / "images" / f"b{i}").mkdir(parents=True)
        for k in range(2):
            pixels = rng.integers(0, 256, (70, 70, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / f"b{i}" / f"{k}.png")
    return tmp_path


def test_a_name_that_is_not_utf8(birds):
    image = birds / "images/b1/0.png"
    image.rename(image.with_name(os.fsdecode(b"\xff.png")))
    with pytest.raises(DataError, match=r'the name "b1/\\udcff.png" is not UTF-8 — rename the image'):
        load_folder(birds)
    assert [f.what for f in check_folder(birds, workers=1).of("error")] == ['the name "b1/\udcff.png" is not UTF-8']


def test_a_pipe_is_not_waited_for(birds):
    os.mkfifo(birds / "images/b1/pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png"):
        load_folder(birds)
    (birds / "classes.csv").unlink()
    assert "not a file" in [f.what for f in check_folder(birds, workers=1).of("error")]


def test_a_first_image_with_an_endless_name(birds):
    (birds / "images.csv").write_text(f"file,class\n{'x' * 5000}.png,b0\nb1/0.png,b1\n")
    with pytest.raises(DataError, match="no image"):
        load_folder(birds)


# formats


@pytest.fixture
def region_file(tmp_path):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        file["feature_map"] = np.ones((6, 3, 2, 2), np.float32)
        file["labels"] = np.arange(6) % 3
        file["att"] = np.ones((3, 2))
    return path


def virtual(file, name):
    layout = h5py.VirtualLayout(shape=(10**6, 10**6), dtype="f8")
    layout[0] = h5py.VirtualSource("nowhere.h5", "x", shape=(10**6,))
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize(
    ("name", "put", "problem"),
    [
        ("labels", lambda f, n: f.create_dataset(n, (10**7, 2048), "i8", chunks=(1, 2048)), "20,480,000,000 elements"),
        ("labels", lambda f, n: f.create_dataset(n, data=[0.5] * 6), "not an integer"),
        ("labels", lambda f, n: f.create_dataset(n, data=[np.nan] * 6), "not an integer"),
        ("labels", lambda f, n: f.create_dataset(n, data=["a"] * 6), "`labels` is object"),
        ("att", virtual, "`att` is stored in another file"),
        ("att", lambda f, n: f.create_dataset(n, (6,), "u1", external=[("/etc/passwd", 0, 6)]), "in another file"),
        ("att", lambda f, n: f.__setitem__(n, h5py.ExternalLink("y.h5", "/att")), "`att` is stored in another file"),
        (
            "feature_map",
            lambda f, n: f.create_dataset(n, (6, 10**9), "f4", chunks=(1, 10**6)),
            "1,000,000,000 values per image",
        ),
        ("feature_map", lambda f, n: f.create_group(n), "`feature_map` is not an array"),
    ],
)
def test_region_files_that_are_not_what_they_say(region_file, name, put, problem):
    with h5py.File(region_file, "r+") as file:
        del file[name]
        put(file, name)
    with pytest.raises(DataError, match=problem):
        RegionFile.open(region_file)


def test_cells_of_the_same_cells_are_counted(tmp_path, monkeypatch):
    path = tmp_path / "x.mat"
    with h5py.File(path, "w") as file:
        last = file.create_dataset("#refs#/0", data=np.ones((1, 1)))
        for level in range(1, 12):  # 10^11 numbers if written out
            cells = np.array([last.ref] * 10, dtype=h5py.ref_dtype)
            last = file.create_dataset(f"#refs#/{level}", data=cells, dtype=h5py.ref_dtype)
        file.create_dataset("names", data=np.array([last.ref], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)
    with pytest.raises(DataError, match="numbers and characters; the limit is 5,000"):
        read_mat(path, most=5000)


def test_a_large_variable_of_matlab_5_is_not_read(tmp_path):
    import scipy.io

    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"a": np.zeros((100, 60))}, do_compression=True)
    assert read_mat(path, most=6000)["a"].shape == (100, 60)
    with pytest.raises(DataError, match="it has at least 6,000 numbers and characters; the limit is 5,999"):
        read_mat(path, most=5999)
    assert hdf5.MOST < res101.MOST_WHOLE


def test_a_pickle_that_asks_for_room(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02]r\xff\xff\xff\x07.")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_pickle(path) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; it was 2 GB


def test_a_damaged_gzip_of_words(tmp_path):
    path = tmp_path / "glove.txt.gz"
    content = bytearray(gzip.compress("".join(f"w{i} {i} 1.5 {i * 7919 % 101}\n" for i in range(30_000)).encode()))
    content[len(content) // 2 :] = b"\xff" * (len(content) // 2)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"glove\.txt\.gz: cannot read further"):
        read_word_vectors(open_word_file(path), ["nowhere"])
    path.write_bytes(content[:12] + b"\xff" * 50)
    with pytest.raises(DataError, match=r"glove\.txt\.gz: cannot be read"):
        open_word_file(path)


# what training leaves behind


def test_weights_that_are_not_finite(tmp_path):
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        module.bias[1] = torch.nan
    save_weights(tmp_path / "x.safetensors", module)
    with pytest.raises(RunError, match='"bias" contains values that are not finite'):
        load_weights(tmp_path / "x.safetensors", torch.nn.Linear(2, 2))


@pytest.mark.parametrize("info", ["[" * 100_000, "9" * 5000, "{"])
def test_a_checkpoint_with_damaged_facts(tmp_path, info):
    save_tensors(tmp_path / "x.safetensors", {}, {"info": info})
    with pytest.raises(RunError, match=r"x\.safetensors: damaged checkpoint"):
        read_info(tmp_path / "x.safetensors")


@pytest.mark.parametrize("changes", [{"crop": 1e9}, {"stages": [None]}, {"std": [None]}, {"options": 3}])
def test_a_configuration_names_its_file(changes):
    backbone = {"name": "test_resnet", "weights": "random", **changes}
    data = {"method": "msdn", "dataset": "x", "backbone": backbone, "protocols": ["honest"], "seeds": [0]}
    with pytest.raises(RunError, match=r"^config\.json: "):
        RunConfig.from_json(data, "config.json")


def test_a_run_without_its_records(tmp_path):
    config = RunConfig.from_json(
        {"method": "msdn", "dataset": "x", "backbone": {"name": "test_resnet"}, "protocols": ["honest"], "seeds": [0]}
    )
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    for name in ("manifest", "results"):
        (tmp_path / f"{name}.json").write_text("{}")
    with pytest.raises(RunError, match="damaged training records"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["stages"][0].pop("file"),
        lambda m: m["stages"][0].update(file="../x"),
        lambda m: m.update(chunk=-1),
        lambda m: m.update(names=["a", 3]),
        lambda m: m["stages"][0].update(channels=2.5),
        lambda m: m["stages"][0].update(grid=[2]),
        lambda m: m.update(dtype=[]),
        lambda m: m.update(stages=[]),
    ],
)
def test_a_store_with_damaged_facts(tmp_path, change):
    values = np.ones((4, 4, 3), np.float32)
    folder = tmp_path / "store"
    write_store(folder, lambda a, b: values[a:b], names=list("abcd"), grid=(2, 2), channels=3, source={"name": "x"})
    RegionStore.open(folder)
    where = folder / layout.META
    meta = json.loads(where.read_text())
    change(meta)
    where.write_text(json.dumps(meta))
    with pytest.raises(StoreError, match=r"store.*damaged"):
        RegionStore.open(folder)


def test_words_outside_a_guessed_scale_are_categories(birds):
    words = ["low", "medium", "high", "low", "medium", "high", "low", "high", "enormous"]
    (birds / "classes.csv").write_text(
        "class,seen,size\n" + "".join(f"b{i},{int(i < 4)},{w}\n" for i, w in enumerate(words))
    )
    names = load_folder(birds).table.attributes.names
    assert names == ("size::enormous", "size::high", "size::low", "size::medium")


@pytest.mark.parametrize("text", ["9" * 30, "1000000000", "1001", "0", "-1", "nan", "1,x"])
def test_seeds_that_are_none(text):
    with pytest.raises(UnseenError, match="is not a number or list of seeds"):
        parse_seeds(text)


def test_seeds_that_no_generator_takes():
    backbone = {"name": "test_resnet"}
    data = {"method": "msdn", "dataset": "x", "backbone": backbone, "protocols": ["honest"], "seeds": [2**63]}
    with pytest.raises(RunError, match="a seed is too large"):
        RunConfig.from_json(data)


def test_a_run_of_another_version_is_one_line():
    data = {
        "method": "msdn",
        "dataset": "x",
        "backbone": {"name": "test_resnet"},
        "protocols": ["honest"],
        "seeds": [0],
    }
    assert RunConfig.from_json(data).looked == ()
    told = 'config.json: the configuration has an unknown entry "zoomed", perhaps from another version of unseen'
    with pytest.raises(RunError, match=told):
        RunConfig.from_json(data | {"zoomed": False}, "config.json")
    for looked in (["zoomed"], "mirror"):
        with pytest.raises(RunError, match=r"looked: .* — use only zoom and mirror"):
            RunConfig.from_json(data | {"looked": looked})


@pytest.mark.parametrize("source", ["", "x" * 5000, "\0", "a\0b"])
def test_images_that_cannot_be(source):
    with pytest.raises(UnseenError, match="no such file"):
        list(FoundImages([source]))


def test_a_list_with_an_endless_line(tmp_path):
    (tmp_path / "list.txt").write_text("x" * 5000 + "\na\0b\n")
    assert [len(str(p)) for p in FoundImages([], [tmp_path / "list.txt"])] == [5000, 3]


# classes and their tables, in any form


ROWS = [["class", "seen", "size", "colour"]] + [
    [f"b{i}", "1", str(i + 1), ("red", "blue", "red; blue")[i % 3]] for i in range(4)
]


@given(
    st.permutations(range(1, 5)),
    st.permutations(range(4)),
    st.sampled_from(",;\t"),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=40, derandomize=True, deadline=None)
def test_order_and_dialect_change_no_class(tmp_path_factory, order, columns, delimiter, mark, end):
    path = tmp_path_factory.mktemp("t") / "classes.csv"
    rows = [[row[c] for c in columns] for row in (ROWS[0], *(ROWS[i] for i in order))]
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator=end).writerows(rows)
    text = out.getvalue()
    path.write_bytes(text.encode("utf-8-sig" if mark else "utf-8"))
    found = read_classes(path.parent, stop)
    assert {
        name: dict(zip(found.attributes.names, values, strict=True))
        for name, values in zip(found.names, found.values.tolist(), strict=True)
    } == {
        f"b{i}": {
            "size::low": 1 - i / 3,
            "size::high": i / 3,
            "colour::red": float(i % 3 != 1),
            "colour::blue": float(i % 3 != 0),
        }
        for i in range(4)
    }


def test_a_pickle_that_says_it_has_much_takes_no_room(tmp_path):
    import struct

    (tmp_path / "b.pkl").write_bytes(b"\x80\x05\x96" + struct.pack("<Q", 400_000_000) + b".")
    tracemalloc.start()
    with pytest.raises(DataError, match="not a valid pickle"):
        read_pickle(tmp_path / "b.pkl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000
    with (tmp_path / "sound.pkl").open("wb") as file:
        pickle.dump(bytearray(b"abc"), file, protocol=5)
    with pytest.raises(DataError, match="bytearray"):  # as before: no array
        read_pickle(tmp_path / "sound.pkl")


def test_hdf5_through_a_group_that_is_in_another_file(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["labels"] = np.arange(3)
    with h5py.File(tmp_path / "l.h5", "w") as file:
        file["ext"] = h5py.ExternalLink("other.h5", "/")
        file["labels"] = h5py.SoftLink("/ext/labels")
    with h5py.File(tmp_path / "l.h5", "r") as file, pytest.raises(DataError, match="in another file"):
        member(file, "labels", tmp_path / "l.h5", "iu")


def test_a_styled_cell_far_below_is_no_row(tmp_path):
    book = openpyxl.Workbook()
    for row in (["class", "seen", "size"], ["a", 1, 2], ["b", 0, 3]):
        book.active.append(row)
    book.active["A1048576"].number_format = "0.00"
    book.save(tmp_path / "classes.xlsx")
    assert read_table(tmp_path / "classes.xlsx").shape == (2, 3)


def test_a_large_sound_parquet_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("unseen.classes.spreadsheets.rows.MOST_CELLS", 1000)
    frame = pd.DataFrame(np.random.default_rng(0).random((50, 30)), columns=[f"c{i}" for i in range(30)])
    frame.to_parquet(tmp_path / "classes.parquet")
    assert read_table(tmp_path / "classes.parquet").shape == (50, 30)
