"""The pointing game: a method that looks at the named part wins it, one that looks elsewhere loses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from unseen.backbones.transform import Transform
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.data.dataset import Dataset
from unseen.errors import DataError
from unseen.evaluation.localisation import parts_of, pointing_game, region_centres
from unseen.methods.base import Branch

TRANSFORM = Transform(64, (0.5,) * 3, (0.5,) * 3)


class Store:
    def grid(self, stage=0):
        return (4, 4)

    def read(self, indices):
        return torch.zeros(len(indices), 16, 1)


class Looker(torch.nn.Module):
    """Looks at one region for every attribute."""

    def __init__(self, region):
        super().__init__()
        self.region = region

    def maps(self, regions):
        attention = torch.zeros(len(regions), 2, 16)
        attention[:, :, self.region] = 1
        return {"a2v": Branch(attention.sum(2), attention, attention)}


@pytest.fixture
def dataset(tmp_path):
    files = [f"{i}.png" for i in range(6)]
    for file in files:
        Image.new("RGB", (64, 64)).save(tmp_path / file)
    table = ClassTable(
        ("a", "b", "c", "d"),
        Attributes(("bill::red", "tail::long"), parts=("bill", "tail")),
        np.array([[1.0, 0], [1, 1], [0, 1], [1, 0.9]]),
        np.array([1, 1, 1, 0], bool),
    )
    rows = [(f, part, x, y, True) for f in files for part, x, y in (("bill", 56, 8), ("tail", 8, 56))]
    parts = pd.DataFrame(rows, columns=["file", "part", "x", "y", "visible"])
    split = np.array(["trainval"] * 3 + ["test_unseen"] * 3, dtype=object)
    return Dataset("birds", tmp_path, table, tuple(files), np.array([0, 1, 2, 3, 3, 3]), split, part_positions=parts)


def test_region_centres_by_hand():
    np.testing.assert_allclose(region_centres(TRANSFORM, (4, 4), 64, 64)[[0, 3, 12]], [[8, 8], [56, 8], [8, 56]])
    # an image twice as wide: the centre crop starts at x = 64
    np.testing.assert_allclose(region_centres(TRANSFORM, (4, 4), 256, 128)[0], [64 + 16, 16])


def test_hits_by_hand(dataset):
    at_bill = pointing_game(Looker(3), dataset, Store(), TRANSFORM, [3, 4, 5])["a2v"]
    assert at_bill.by_group["bill"][0] == 1
    assert at_bill.by_group["tail"][0] == 0
    assert at_bill.hits == 0.5
    # radius: 0.15 of the diagonal of the parts' box (67.9) is 10.2, less than a cell's half diagonal 11.3 -> 1 region
    assert at_bill.chance == pytest.approx(1 / 16)
    nowhere = pointing_game(Looker(5), dataset, Store(), TRANSFORM, [3, 4, 5])["a2v"]
    assert nowhere.hits == 0


def test_rotated_photographs_are_measured_upright(dataset):
    """The image is stored on its side (EXIF 6); part positions are those of the upright one."""
    path = dataset.images / "3.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (128, 64)).save(path, exif=exif)  # upright: 64 wide, 128 high
    files = list(dataset.files)
    files[3] = "3.jpg"
    object.__setattr__(dataset, "files", tuple(files))
    frame = dataset.part_positions
    frame.loc[frame["file"] == "3.png", "file"] = "3.jpg"
    frame.loc[(frame["file"] == "3.jpg") & (frame["part"] == "bill"), ["x", "y"]] = (
        56,
        40,
    )  # 8 px below the crop's top
    frame.loc[(frame["file"] == "3.jpg") & (frame["part"] == "tail"), ["x", "y"]] = (8, 88)
    assert pointing_game(Looker(3), dataset, Store(), TRANSFORM, [3])["a2v"].by_group["bill"][0] == 1


def test_only_attributes_that_the_class_has(dataset):
    found = pointing_game(Looker(3), dataset, Store(), TRANSFORM, [0])["a2v"]
    assert set(found.by_group) == {"bill"}


def test_hidden_parts_do_not_count(dataset):
    frame = dataset.part_positions
    frame.loc[frame["part"] == "tail", "visible"] = False
    extra = frame[frame["part"] == "tail"].assign(part="wing", visible=True)
    object.__setattr__(dataset, "part_positions", pd.concat([frame, extra]))
    found = pointing_game(Looker(3), dataset, Store(), TRANSFORM, [3])["a2v"]
    assert set(found.by_group) == {"bill"}


def test_without_parts_it_says_so(dataset):
    object.__setattr__(dataset, "part_positions", None)
    with pytest.raises(DataError, match=r"parts\.csv"):
        parts_of(dataset)


@pytest.mark.real_data
def test_cub_attributes_find_their_parts(real_data):
    from unseen.data.folder import load_folder

    dataset = load_folder(real_data / "cub50")
    by_name = dict(zip(dataset.table.attributes.names, parts_of(dataset), strict=True))
    assert by_name["has_bill_shape::dagger"] == ("beak",)
    assert by_name["has_under_tail_color::blue"] == ("tail",)
    assert by_name["has_eye_color::red"] == ("left eye", "right eye")
    assert by_name["has_size::small_(5_-_9_in)"] == ()
