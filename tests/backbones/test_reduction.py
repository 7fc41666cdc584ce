"""Reduced regions: what is asked for, the map itself, its stores, and runs and models on them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from unseen.backbones.backbone import Backbone
from unseen.backbones.reduction import FILE, Reduction, ReductionSpec
from unseen.data.catalogue import load_dataset
from unseen.data.dataset import validation_partition
from unseen.errors import RunError, UnseenError
from unseen.features.extract import extract
from unseen.features.reduced import extract_reduced, reduce_store
from unseen.recognizer import Recognizer
from unseen.training.config import RunConfig
from unseen.training.folder import Run
from unseen.training.run import evaluate_run, fit


@pytest.mark.parametrize(
    ("text", "components", "merge", "canonical"),
    [
        ("", 0, 1, ""),
        ("pca:64", 64, 1, "pca:64"),
        ("merge:2", 0, 2, "merge:2"),
        ("pca:8, merge:3", 8, 3, "merge:3,pca:8"),
    ],
)
def test_what_is_asked_for(text, components, merge, canonical):
    spec = ReductionSpec.parse(text)
    assert (spec.components, spec.merge, str(spec)) == (components, merge, canonical)
    assert ReductionSpec.parse(canonical) == spec


@pytest.mark.parametrize("text", ["pca", "pca:0", "pca:-4", "merge:1", "pca:4,pca:5", "svd:4", "pca:1.5", "pca:999999"])
def test_anything_else_is_one_line(text):
    with pytest.raises(UnseenError, match="is not a reduction"):
        ReductionSpec.parse(text)


def test_merging_averages_neighbours():
    regions = torch.arange(16.0).view(1, 16, 1)
    merged = Reduction(ReductionSpec(merge=2), (4, 4), dtype="float32")(regions)
    assert merged.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_regions_on_an_edge_count_by_their_share():
    """3 regions a side become 2: each takes one and a half, two thirds of it the outer one."""
    regions = torch.tensor([0.0, 3.0, 9.0]).view(1, 3, 1)
    merged = Reduction(ReductionSpec(merge=2), (1, 3), dtype="float32")(regions)
    torch.testing.assert_close(merged.flatten(), torch.tensor([1.0, 7.0]))


@pytest.mark.parametrize("grid", [(7, 7), (14, 9), (1, 5), (3, 2)])
@pytest.mark.parametrize("merge", [2, 3])
def test_merging_keeps_the_mean_and_the_places(grid, merge):
    reduction = Reduction(ReductionSpec(merge=merge), grid, dtype="float32")
    height, width = reduction.grid
    assert reduction.grid == (-(-grid[0] // merge), -(-grid[1] // merge))
    y, x = torch.meshgrid(
        (torch.arange(grid[0]) + 0.5) / grid[0], (torch.arange(grid[1]) + 0.5) / grid[1], indexing="ij"
    )
    found = reduction(torch.stack([y, x], dim=2).view(1, -1, 2))[0]
    torch.testing.assert_close(found.mean(dim=0), torch.tensor([0.5, 0.5]))
    rows = (torch.arange(height) + 0.5) / height
    if grid[0] % merge == 0:
        torch.testing.assert_close(found[:, 0].view(height, width)[:, 0], rows)
    else:  # a cut region's own centre stands for all of it
        assert (found[:, 0].view(height, width)[:, 0] - rows).abs().max() < 0.25 / height


def test_components_span_the_first_axes_of_unit_regions():
    generator = torch.Generator().manual_seed(0)
    regions = torch.randn(90, 4, 30, generator=generator) * torch.logspace(0, -2, 30) + torch.eye(30)[3]
    reduction = Reduction(ReductionSpec(components=20), (2, 2), dtype="float32")
    kept = reduction.fit(regions.split(7))
    unit = F.normalize(regions.flatten(0, 1), dim=1).double()
    _, values, axes = torch.linalg.svd(unit, full_matrices=False)
    v = reduction.components.double()
    torch.testing.assert_close(v @ v.T, torch.eye(20, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(v.T @ v, axes[:20].T @ axes[:20], atol=1e-5, rtol=0)
    assert kept == pytest.approx(float((values[:20] ** 2).sum() / (values**2).sum()), abs=1e-6)
    found, on_axes = (regions.flatten(0, 1) @ basis.T.float() for basis in (v, axes[:20]))
    spread, spread_on_axes = (x.std(dim=0).max() / x.std(dim=0).min() for x in (found, on_axes))
    assert spread < 4
    assert spread_on_axes > 15
    torch.testing.assert_close(reduction(regions), regions @ reduction.components.T)


def test_all_components_keep_every_inner_product():
    regions = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(1))
    reduction = Reduction(ReductionSpec(components=8), (1, 5), dtype="float32")
    assert reduction.fit([regions]) == pytest.approx(1.0)
    flat, found = regions.flatten(0, 1), reduction(regions).flatten(0, 1)
    torch.testing.assert_close(found @ found.T, flat @ flat.T, atol=1e-4, rtol=1e-5)


def test_more_components_than_channels():
    with pytest.raises(UnseenError, match="pca:9 of 8 channels"):
        Reduction(ReductionSpec(components=9), (2, 2)).fit([torch.ones(1, 4, 8)])


def made(components=3, merge=2, grid=(4, 4), channels=6):
    reduction = Reduction(ReductionSpec(components, merge), grid)
    reduction.fit([torch.randn(9, grid[0] * grid[1], channels, generator=torch.Generator().manual_seed(2))])
    return reduction


@pytest.mark.parametrize(("components", "merge"), [(3, 2), (3, 1), (0, 2)])
def test_file_round_trip(components, merge, tmp_path):
    reduction = made(components, merge)
    reduction.save(tmp_path / FILE)
    loaded = Reduction.load(tmp_path / FILE)
    assert (loaded.spec, loaded.full_grid, loaded.dtype) == (reduction.spec, reduction.full_grid, "float16")
    assert loaded.fingerprint == reduction.fingerprint
    regions = torch.randn(2, 16, 6)
    assert torch.equal(loaded(regions), reduction(regions))


def test_fingerprint_tells_maps_apart():
    first, other = made(), made()
    other.components = other.components.clone()
    other.components[0, 0] += 1e-7
    assert len({first.fingerprint, other.fingerprint, made(merge=1).fingerprint, made(components=2).fingerprint}) == 4


@pytest.mark.parametrize(
    ("tensors", "about"),
    [
        ({}, None),
        ({}, {"reduce": "pca:3", "grid": "4x4", "dtype": "float16"}),
        ({"components": torch.ones(3, 6)}, {"reduce": "pca:4", "grid": "4x4", "dtype": "float16"}),
        ({"components": torch.ones(3, 6)}, {"reduce": "merge:2", "grid": "4x4", "dtype": "float16"}),
        ({"components": torch.ones(3, 6)}, {"reduce": "pca:3", "grid": "99999999x4", "dtype": "float16"}),
        ({"components": torch.ones(3, 6)}, {"reduce": "pca:3", "grid": "4x4", "dtype": "load"}),
        ({"components": torch.ones(3, 6)}, {"reduce": "pca:3", "grid": "4", "dtype": "float16"}),
        ({"components": torch.ones(3)}, {"reduce": "pca:3", "grid": "4x4", "dtype": "float16"}),
    ],
)
def test_damaged_files_are_one_line(tensors, about, tmp_path):
    save_file(tensors, tmp_path / FILE, about)
    with pytest.raises(RunError, match="not a valid reduction file"):
        Reduction.load(tmp_path / FILE)


def test_file_that_is_missing_or_no_safetensors(tmp_path):
    with pytest.raises(RunError, match="no such file"):
        Reduction.load(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(b"garbage")
    with pytest.raises(RunError, match="not a valid reduction file"):
        Reduction.load(tmp_path / FILE)


def test_a_reduced_backbone(tiny_backbone):
    backbone, plain = Backbone(tiny_backbone), Backbone(tiny_backbone)
    reduction = Reduction(ReductionSpec(5, 2), plain.grids[0])
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    full = plain(pixels)[0]
    reduction.fit([full])
    backbone.reduced(reduction)
    assert (backbone.grids, backbone.channels) == ([(2, 2)], [5])
    assert backbone.fingerprint != plain.fingerprint
    torch.testing.assert_close(backbone(pixels)[0], reduction(full))
    with pytest.raises(UnseenError, match="differ from those of the reduction"):
        Backbone(tiny_backbone).reduced(made())


@pytest.fixture(scope="module")
def images(tiny_guide):
    dataset = load_dataset(str(tiny_guide), cache=tiny_guide)
    return dataset, validation_partition(dataset).train


def test_store_is_the_same_with_and_without_a_full_one(images, tiny_backbone, tmp_path):
    dataset, fit_on = images
    options = {"names": dataset.files, "spec": ReductionSpec(6, 2), "fit_on": fit_on}
    direct = extract_reduced(dataset.paths(), Backbone(tiny_backbone), tmp_path / "a", **options)
    full = extract(dataset.paths(), Backbone(tiny_backbone), tmp_path / "b", names=dataset.files)
    derived = extract_reduced(dataset.paths(), Backbone(tiny_backbone), tmp_path / "b", **options)
    assert len(list((tmp_path / "a").glob("*/stage0.bin"))) == 1  # no full store was made
    assert (derived.grid(), derived.channels(), derived.dtype) == ((2, 2), 6, torch.float16)
    assert derived.nbytes * full.channels() * 4 == full.nbytes * 6
    everything = range(len(dataset.files))
    reduction = Reduction.load(derived.folder / FILE)
    torch.testing.assert_close(derived.read(everything), reduction(full.read(everything)).half(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(derived.read(everything), direct.read(everything), atol=1e-2, rtol=1e-2)
    derived.verify()
    again = extract_reduced(dataset.paths(), Backbone(tiny_backbone), tmp_path / "b", **options)
    assert again.fingerprint == derived.fingerprint != full.fingerprint


def test_axes_are_of_the_images_named_alone(images, tiny_backbone, tmp_path):
    dataset, fit_on = images
    full = extract(dataset.paths(), Backbone(tiny_backbone), tmp_path, names=dataset.files)
    store = reduce_store(full, tmp_path, spec=ReductionSpec(6), fit_on=fit_on)
    expected = Reduction(ReductionSpec(6), full.grid())
    expected.fit([full.read(fit_on)])
    found = Reduction.load(store.folder / FILE).components
    torch.testing.assert_close(found.T @ found, expected.components.T @ expected.components, atol=1e-4, rtol=0)
    other = reduce_store(full, tmp_path, spec=ReductionSpec(6), fit_on=fit_on[:20])
    assert other.fingerprint != store.fingerprint
    kept = reduce_store(full, tmp_path, spec=ReductionSpec(6), fit_on=fit_on[:20], kept=store.folder / FILE)
    assert kept.fingerprint == store.fingerprint


@pytest.mark.parametrize("method", ["mgmrn", "tuned"])
def test_methods_that_need_features_as_they_are(method, tiny_backbone):
    with pytest.raises(UnseenError, match="uses the backbone's full features"):
        RunConfig(method=method, dataset="x", backbone=tiny_backbone, reduce="pca:4")


@pytest.fixture(scope="module")
def run(tiny_guide, tiny_backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reduced")
    config = RunConfig(
        method="msdnpp",
        dataset=str(tiny_guide),
        backbone=tiny_backbone,
        recipe={"epochs": "1"},
        reduce="pca:12, merge:2",
        draws=1,
    )
    return fit(config, folder / "run", cache=folder / "cache", device="cpu")


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (80, 100, 3), dtype=np.uint8))


def test_run_keeps_its_reduction(run, tmp_path):
    assert run.config.reduce == "merge:2,pca:12"
    backbone = run.manifest["backbone"]
    assert (backbone["regions"], backbone["channels"], backbone["reduce"]) == ("2x2", 12, "merge:2,pca:12")
    found = evaluate_run(run, device="cpu", cache=tmp_path)  # from another cache: the axes are the run's own
    for name, value in run.results["protocols"]["honest"]["seeds"]["0"].items():
        if isinstance(value, float) and name in found["seeds"]["0"]:
            assert found["seeds"]["0"][name] == pytest.approx(value, abs=1e-6)
    assert not list(tmp_path.glob("regions/reduction-*.safetensors"))


def test_resuming_and_other_reductions(run, tmp_path, tiny_guide):
    again = fit(run.config, run.folder, cache=run.folder.parent / "cache", device="cpu")
    assert again.results["protocols"] == run.results["protocols"]
    data = run.config.to_json() | {"reduce": ""}
    with pytest.raises(RunError, match="a run with different reduce"):
        fit(RunConfig.from_json(data), run.folder, cache=run.folder.parent / "cache", device="cpu")
    del data["reduce"]  # of a version that knew none
    assert RunConfig.from_json(data).reduce == ""


def test_predicting_is_what_was_trained_on(run, tiny_guide):
    """Attribute scores of a training image equal those kept from the store."""
    recognizer = Recognizer.load(run.folder, device="cpu")
    references = recognizer.references
    row = 3
    scores = recognizer.look(tiny_guide / "images" / references.files[row]).attribute_scores
    np.testing.assert_allclose(scores, references.attribute_scores[row], rtol=0.02, atol=0.02 * np.abs(scores).max())


def test_saved_model_answers_as_the_run(run, image, tmp_path):
    recognizer = Recognizer.load(run.folder, device="cpu")
    saved = recognizer.save(tmp_path / "model")
    assert json.loads((saved / "recognizer.json").read_text())["reduce"] == "merge:2,pca:12"
    loaded = Recognizer.from_pretrained(saved, device="cpu")
    assert loaded.predict(image)[0].as_dict() == recognizer.predict(image)[0].as_dict()
    assert loaded.explain(image).contributions.shape[1:] == (2, 2)
    again = loaded.save(tmp_path / "again")
    assert (again / FILE).read_bytes() == (saved / FILE).read_bytes()
    (saved / FILE).unlink()
    with pytest.raises(RunError, match="no such file"):
        Recognizer.from_pretrained(saved, device="cpu")


def test_a_later_save_without_one_leaves_none(run, tiny_backbone, tmp_path):
    recognizer = Recognizer.load(run.folder, device="cpu")
    recognizer.save(tmp_path / "model")
    recognizer.backbone.reduction = None
    recognizer.save(tmp_path / "model")
    assert not (tmp_path / "model" / FILE).exists()


def test_onnx(run, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs unseen[export]")
    from unseen.export import export_onnx

    exported = export_onnx(Recognizer.load(run.folder, device="cpu"), tmp_path / "model.onnx", maps=True)
    assert {"scores", "attribute_scores", "contributions"} <= set(exported.differences)


def test_command_line(unseen, tiny_guide, tiny_backbone, tmp_path):
    words = ["train", tiny_guide, "--method", "eszsl", "--backbone", tiny_backbone.name, "--backbone-weights", "random"]
    words += ["--image-size", 64, "--output", tmp_path / "run", "--cache", tmp_path / "cache", "--no-report"]
    status, out, err = unseen(*words, "--reduce", "pca:16", "--device", "cpu", "--draws", "1")
    assert status == 0, err
    assert "frozen, pca:16" in " ".join(out.split())
    assert Run(tmp_path / "run").config.reduce == "pca:16"
    status, _, err = unseen(*words, "--reduce", "pca:x", "--device", "cpu")
    assert status != 0
    assert '"pca:x" is not a reduction' in err
