import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unseen
from unseen import fieldguide
from unseen.errors import UnseenError
from unseen.fieldguide import ATTRIBUTES, GROUPS, PAIRS, PARTS, build, draw, invent, random_appearance
from unseen.fieldguide.attributes import attribute_vector
from unseen.fieldguide.species import MIN_DIFFERING_GROUPS, differing_groups

SMALL = {"species": 10, "images": 4, "size": 64}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fieldguide") / "birds"
    build(path, workers=1, **SMALL)
    return path


@pytest.fixture(scope="module")
def world() -> list[fieldguide.Species]:
    return invent(0, 60)


def test_build_is_the_same_for_any_number_of_workers(folder: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    build(tmp_path / "again", workers=2, tick=lambda done, total: steps.append((done, total)), **SMALL)
    assert contents(tmp_path / "again") == contents(folder)
    assert steps == [(4 * n, 40) for n in range(1, 11)]
    assert [p.name for p in tmp_path.iterdir()] == ["again"]


def test_another_seed_is_another_world(folder: Path, tmp_path: Path) -> None:
    build(tmp_path / "other", seed=1, workers=1, species=10, images=2, size=32)
    assert (tmp_path / "other" / "classes.csv").read_bytes() != (folder / "classes.csv").read_bytes()
    assert invent(1, 60) != invent(0, 60)


def test_tables_agree(folder: Path) -> None:
    images, classes = rows(folder / "images.csv"), rows(folder / "classes.csv")
    attributes, parts, boxes = (rows(folder / f"{name}.csv") for name in ("attributes", "parts", "boxes"))
    files = [row["file"] for row in images]
    assert len(files) == len(set(files)) == 40
    assert files == [row["file"] for row in boxes]
    assert {str(p.relative_to(folder / "images")) for p in (folder / "images").rglob("*.jpg")} == set(files)
    assert list(classes[0]) == ["class", "seen", "validation", "family", *ATTRIBUTES]
    assert [row["attribute"] for row in attributes] == list(ATTRIBUTES)
    assert {row["part"] for row in attributes} == {row["part"] for row in parts} == set(PARTS)
    kinds = {row["class"]: row for row in classes}
    for row in images:
        assert row["file"].startswith(row["class"] + "/")
        assert (row["split"] == "test_unseen") == (kinds[row["class"]]["seen"] == "0")
    for kind in classes:
        for group in GROUPS:
            assert sum(int(kind[f"{group.name}::{value}"]) for value in group.values) == 100
        splits = [row["split"] for row in images if row["class"] == kind["class"]]
        if kind["seen"] == "1":
            assert sorted(splits) == ["test_seen", "trainval", "trainval", "trainval"]
        else:
            assert kind["validation"] == "0"
    about = json.loads((folder / "dataset.json").read_text())
    assert (about["name"], about["seed"], about["species"], about["images"], about["size"]) == (
        "fieldguide",
        0,
        10,
        4,
        64,
    )


def test_images_parts_and_boxes(folder: Path) -> None:
    parts = rows(folder / "parts.csv")
    assert len(parts) == 40 * len(PARTS)
    for row in parts:
        if row["visible"] == "1":
            assert 0 <= float(row["x"]) <= 64
            assert 0 <= float(row["y"]) <= 64
    assert np.mean([row["visible"] == "1" for row in parts]) > 0.8
    for row in rows(folder / "boxes.csv"):
        x, y, width, height = (int(row[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x < x + width <= 64
        assert 0 <= y < y + height <= 64
        assert width * height > 200
        with Image.open(folder / "images" / row["file"]) as image:
            assert (image.size, image.mode) == ((64, 64), "RGB")


@pytest.mark.parametrize(
    "wrong", [{"species": 9}, {"species": 201}, {"images": 1}, {"size": 31}, {"seed": -1}], ids=str
)
def test_senseless_sizes_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UnseenError):
        build(tmp_path / "birds", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_folder_is_left_alone(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(UnseenError, match="already exists"):
        build(folder, workers=1, **SMALL)
    assert contents(folder) == before


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "birds", workers=1, tick=stop, **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [10, 11, 13, 25, 60, 120])
def test_worlds_of_any_size_hold_together(count: int) -> None:
    world = invent(3, count)
    assert len({species.name for species in world}) == len(world) == count
    for i, species in enumerate(world):
        assert all(differing_groups(species.appearance, o.appearance) >= MIN_DIFFERING_GROUPS for o in world[:i])
        assert species.seen or not species.validation
    assert sum(not species.seen for species in world) >= 2
    assert sum(species.validation for species in world) >= 2


def test_default_world(world: list[fieldguide.Species]) -> None:
    assert sum(species.seen for species in world) == 44
    assert sum(species.validation for species in world) == 11
    train = np.array([attribute_vector(s.appearance) for s in world if s.seen and not s.validation])
    assert train.mean(axis=0).min() > 0.1
    assert train.mean(axis=0).max() < 0.9


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_pairs_hold_in_seen_species_and_break_in_unseen(world: list[fieldguide.Species], pair: tuple[str, str]) -> None:
    def phi(chosen: list[fieldguide.Species]) -> float:
        table = np.array([attribute_vector(s.appearance) for s in chosen])
        return float(np.corrcoef(table[:, ATTRIBUTES.index(pair[0])], table[:, ATTRIBUTES.index(pair[1])])[0, 1])

    train = phi([s for s in world if s.seen and not s.validation])
    validation = phi([s for s in world if s.validation])
    unseen = phi([s for s in world if not s.seen])
    assert train > 0.85
    assert phi([s for s in world if s.seen]) > 0.6
    assert validation < train - 0.3
    assert unseen < 0.1


def appearance() -> dict[str, str]:
    return {group.name: group.values[0] for group in GROUPS}


def test_draw_repeats_itself() -> None:
    one, parts, box = draw(appearance(), np.random.default_rng(4), 64)
    two, parts_again, box_again = draw(appearance(), np.random.default_rng(4), 64)
    assert one.tobytes() == two.tobytes()
    assert (parts, box) == (parts_again, box_again)
    assert set(parts) == set(PARTS)
    assert one.tobytes() != draw(appearance(), np.random.default_rng(5), 64)[0].tobytes()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_value_shows(group: fieldguide.Group) -> None:
    images = set()
    for value in group.values:
        image, parts, _ = draw({**appearance(), group.name: value}, np.random.default_rng(8), 96)
        assert set(parts) == set(PARTS)
        images.add(image.tobytes())
    assert len(images) == len(group.values)


@pytest.mark.parametrize(
    ("group", "value", "reach"),
    [
        ("bill_color", "blue", 0.2),
        ("eye_ring", "plain", 0.08),
        ("throat_color", "black", 0.16),
        ("crown_color", "blue", 0.27),
        ("breast_pattern", "banded", 0.22),
        ("leg_color", "black", 0.2),
        ("wing_bars", "plain", 0.22),
        ("tail_shape", "rounded", 0.34),
    ],
)
def test_an_attribute_changes_pixels_only_near_its_part(group: str, value: str, reach: float) -> None:
    size, part = 128, next(g.part for g in GROUPS if g.name == group)
    shares = []
    for seed in range(5):
        plain, parts, _ = draw(appearance(), np.random.default_rng(seed), size)
        other, _, _ = draw({**appearance(), group: value}, np.random.default_rng(seed), size)
        change = np.abs(np.asarray(plain, dtype=float) - np.asarray(other, dtype=float)).sum(axis=2)
        down, across = np.mgrid[:size, :size]
        near = np.hypot(across - parts[part].x, down - parts[part].y) < reach * size
        assert change.sum() > 0
        shares.append(change[near].sum() / change.sum())
    assert np.mean(shares) > 0.9, shares


def test_random_appearances_are_whole_and_vary() -> None:
    rng = np.random.default_rng(0)
    drawn = [attribute_vector(random_appearance(rng)) for _ in range(200)]
    assert all(vector.sum() == len(GROUPS) for vector in drawn)
    assert np.mean(drawn, axis=0).min() > 0.1


def test_backbone_fits_timm() -> None:
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    from safetensors import safe_open

    backbone = fieldguide.BACKBONE
    assert backbone["weights"].stat().st_size < 1_500_000
    model = timm.create_model(backbone["name"], num_classes=0, **backbone["options"])
    with safe_open(backbone["weights"], "pt") as file:
        metadata = file.metadata()
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    model.load_state_dict(weights)
    assert metadata["architecture"] == backbone["name"]
    assert json.loads(metadata["options"]) == backbone["options"]
    assert float(metadata["held_out_accuracy"]) > 0.5
    side = backbone["image_size"]
    with torch.inference_mode():
        regions = model.eval().forward_features(torch.zeros(1, 3, side, side))
    assert regions.shape[2:] == (8, 8)


def test_a_script_without_a_main_guard_can_draw(tmp_path: Path) -> None:
    """As the README's snippets are: drawing in several processes must not run the script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom unseen.fieldguide import build\nprint('once')\n"
        "build(Path('birds'), species=10, images=2, size=32, workers=2)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(unseen.__file__).parents[1])}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "once\n"
    assert len(list((tmp_path / "birds" / "images").rglob("*.jpg"))) == 20
