"""Predictions in shards end with the rows of a single process; tar archives with those of a folder."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from openpyxl import load_workbook
from PIL import Image

from unseen.backbones.backbone import Backbone
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.data.tars import WithTars, tar_images
from unseen.errors import DataError, RunError, UnseenError
from unseen.ground.shards import Shard, parse_shard, shard_of
from unseen.methods import create_method
from unseen.recognizer import Recognizer
from unseen.recognizer.merging import merge
from unseen.recognizer.stream import Options, predict_to_file

OPTIONS = Options(top=3, batch_size=4)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """18 images, of which number 5 is broken."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(1)
    files = [folder / f"{i:02d}.png" for i in range(18)]
    for file in files:
        Image.fromarray(rng.integers(0, 255, (8, 9, 3), dtype=np.uint8)).resize((70, 64)).save(file)
    files[5].write_bytes(b"no image")
    return files


@pytest.fixture(scope="module")
def recognizer(tiny_backbone):
    backbone, rng = Backbone(tiny_backbone), np.random.default_rng(0)
    table = ClassTable(("a", "b", "c"), Attributes(("x", "y")), rng.random((3, 2)) + 0.1, np.array([1, 1, 0], bool))
    method = create_method("global", channels=backbone.channels[0], vectors=torch.randn(2, 8))
    with torch.no_grad():
        method.weight.copy_(torch.randn(method.weight.shape, generator=torch.Generator().manual_seed(2)))
    return Recognizer(backbone, method, table, temperature=0.5, device="cpu")


def predict(recognizer, images, folder, count, only=None):
    for i in range(count) if only is None else only:
        shard = Shard(i, count)
        predict_to_file(recognizer, shard.deal(images, OPTIONS.batch_size), folder / shard.name, OPTIONS)


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_shards_end_with_the_rows_of_one_process(count, recognizer, images, tmp_path):
    for ending in (".csv", ".xlsx", ".parquet"):
        predict_to_file(recognizer, images, tmp_path / f"one{ending}", OPTIONS)
    predict(recognizer, images, tmp_path / "parts", count)
    assert merge(tmp_path / "parts", tmp_path / "all.csv") == 18
    assert (tmp_path / "all.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    merge(tmp_path / "parts", tmp_path / "all.parquet")
    assert pq.read_table(tmp_path / "all.parquet").equals(pq.read_table(tmp_path / "one.parquet"))
    merge(tmp_path / "parts", tmp_path / "all.xlsx")
    books = [load_workbook(tmp_path / f"{name}.xlsx") for name in ("all", "one")]
    assert [book.sheetnames for book in books] == [["predictions"]] * 2
    rows = [list(book.active.iter_rows(values_only=True)) for book in books]
    assert rows[0] == rows[1]
    assert (len(rows[0]), type(rows[0][1][rows[0][0].index("confidence")])) == (19, float)
    assert pq.read_table(tmp_path / "parts").num_rows == 18  # and the folder is a dataset


def test_what_does_not_fit_together(recognizer, images, tmp_path):
    parts = tmp_path / "parts"
    with pytest.raises(RunError, match="no parts"):
        merge(parts, tmp_path / "all.csv")
    predict(recognizer, images, parts, 3, only=[0, 2])
    with pytest.raises(RunError, match=r"1 of 3 parts are missing: 1 — run --shard 1/3"):
        merge(parts, tmp_path / "all.csv")
    recognizer.gamma = 0.25
    predict(recognizer, images, parts, 3, only=[1])
    recognizer.gamma = 0.0
    with pytest.raises(RunError, match=r"part-00001-of-00003\.parquet: differs from part-00000\S+ in model"):
        merge(parts, tmp_path / "all.csv")
    (parts / "part-00001-of-00003.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(RunError, match="damaged"):
        merge(parts, tmp_path / "all.csv")
    (parts / "part-00000-of-00004.parquet").touch()
    with pytest.raises(RunError, match="parts of runs with 3 and 4 shards"):
        merge(parts, tmp_path / "all.csv")
    with pytest.raises(UnseenError, match=r"merged parts — use one of \.csv, \.xlsx, \.parquet"):
        merge(parts, tmp_path / "all.jsonl")


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"RANK": "2", "WORLD_SIZE": "4"}, Shard(2, 4)),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}, Shard(3, 8)),
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "8"}, Shard(0, 8)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "14",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_STEP": "2",
                "SLURM_ARRAY_TASK_COUNT": "3",
            },
            Shard(2, 3),
        ),
    ],
)
def test_a_share_by_the_environment(environment, found):
    assert shard_of(environment) == found


def test_shards_as_they_are_written():
    assert parse_shard("3/16") == Shard(3, 16)
    assert Shard(3, 16).name == "part-00003-of-00016.parquet"
    assert [list(Shard(i, 3).deal(range(10), 2)) for i in range(3)] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5]]
    for wrong in ("3", "a/b", "4/4", "0/0", "-1/4"):
        with pytest.raises(UnseenError, match=r"no shard|is not a shard"):
            parse_shard(wrong)


@pytest.fixture(scope="module")
def archive(images, tmp_path_factory):
    """A shard as WebDataset writes it: samples of several files."""
    path = tmp_path_factory.mktemp("tars") / "birds-000000.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i, file in enumerate(images):
            tar.add(file, f"{i:06d}.png")
            label = path.with_name("cls")
            label.write_text(str(i))
            tar.add(label, f"{i:06d}.cls")
        tar.add(images[0], "._hidden.png")
    return path


def test_images_of_an_archive(recognizer, images, archive, tmp_path):
    found = list(tar_images(archive))
    assert [str(f) for f in found] == [f"{archive}/{i:06d}.png" for i in range(18)]
    predict_to_file(recognizer, images, tmp_path / "files.parquet", OPTIONS)
    predict_to_file(recognizer, WithTars([archive]), tmp_path / "tar.parquet", OPTIONS)
    one, two = (pq.read_table(tmp_path / f"{n}.parquet").drop_columns(["image", "error"]) for n in ("files", "tar"))
    assert one.equals(two)
    named = pq.read_table(tmp_path / "tar.parquet")
    assert named["image"].to_pylist() == [str(f) for f in found]
    assert [e is not None for e in named["error"].to_pylist()] == [i == 5 for i in range(18)]
    good = recognizer.predict(str(archive), broken=lambda error: None)
    assert [p.image for p in good] == [str(f) for i, f in enumerate(found) if i != 5]
    assert [c.name for c in recognizer.explain(found[0]).prediction.candidates] == [c.name for c in good[0].candidates]


def test_what_is_no_archive(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no archive" * 100)
    with tarfile.open(tmp_path / "b.tar", "w:gz") as tar:
        tar.add(__file__, "x.png")
    for name in ("a.tar", "b.tar", "gone.tar"):
        with pytest.raises(DataError, match=rf"{name}: .* — make it an uncompressed tar, or unpack it"):
            list(WithTars([Path(tmp_path / name)]))
