"""Figures of a finished run: what is written, that its numbers are the run's, and what is said when it cannot be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import unseen
from unseen.backbones.backbone import Backbone
from unseen.errors import DataError, RunError, UnseenError
from unseen.explain.answers import answers_of
from unseen.explain.attention import Parts, attention_sheet
from unseen.explain.courses import choice_sentence, mean_epochs
from unseen.explain.gallery import run_figures


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def runs(tiny_guide, tiny_backbone, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    options = {"backbone": tiny_backbone, "cache": cache, "device": "cpu", "draws": 1}
    return {
        "msdn": unseen.fit(  # as released: it scores with unit class vectors
            "msdn", tiny_guide, folder / "msdn", preset="cub", recipe={"epochs": "3", "lr": "1e-3"}, **options
        ),
        "eszsl": unseen.fit("eszsl", tiny_guide, folder / "eszsl", **options),
    }


@pytest.fixture(scope="module")
def answers(runs, cache):
    return answers_of(runs["msdn"], cache=cache, device="cpu")


@pytest.fixture(scope="module")
def drawn(runs, cache):
    return run_figures(runs["msdn"], cache=cache, device="cpu", examples=1)


def test_answers_are_the_recognizer_s(runs, answers, tiny_backbone):
    """The same scores, names and features as from the pixels, without the region store."""
    recognizer = unseen.Recognizer.load(runs["msdn"].folder, device="cpu")
    backbone = Backbone(tiny_backbone)
    names, paths = answers.dataset.table.names, answers.dataset.paths()
    positions = np.array([0, 5, len(answers.images) - 1])
    pooled = answers.pooled(positions)
    for row, position in enumerate(positions):
        path = paths[answers.images[position]]
        why = recognizer.explain(path)
        scores = {r.attribute: r.score for r in why.reasons}
        expected = [scores[a] for a in answers.dataset.table.attributes.names]
        np.testing.assert_allclose(answers.attribute_scores[position], expected, atol=1e-5)
        assert names[answers.predicted[position]] == why.target.name
        mean = backbone(backbone.transform(path)[None])[0].detach().half().float().mean(dim=1)[0].numpy()
        np.testing.assert_allclose(pooled[row], mean / np.linalg.norm(mean), atol=1e-6)
        assert answers.find(path) == answers.images[position]
    assert answers.find(runs["msdn"].folder / "elsewhere.jpg") is None
    assert answers.unseen.sum() == len(answers.dataset.indices("test_unseen"))


def test_accuracy_of_the_answers_is_the_run_s(runs, answers):
    """Mean over classes of right names: U and S of the results."""
    right = answers.predicted == answers.labels
    found = runs["msdn"].results["protocols"]["honest"]["seeds"]["0"]
    for side, which in (("U", answers.unseen), ("S", ~answers.unseen)):
        classes = np.unique(answers.labels[which])
        assert np.mean([right[answers.labels == c].mean() for c in classes]) == pytest.approx(found[side])


def test_examples_are_unseen_right_and_wrong_by_a_fixed_draw(answers):
    chosen = answers.examples(2)
    assert chosen == answers.examples(2)
    position = {int(p): i for i, p in enumerate(answers.images)}
    hits = [bool(answers.predicted[position[i]] == answers.labels[position[i]]) for i in chosen]
    assert hits == sorted(hits, reverse=True)
    assert not answers.dataset.table.seen[answers.dataset.labels[chosen]].any()
    assert len(set(answers.dataset.labels[chosen])) > 1


def test_every_figure_has_its_numbers_beside_it(runs, drawn):
    assert not drawn.notes
    kinds = [name.split("-")[0] for name in drawn.figures]
    assert kinds[:2] == ["tsne", "attributes"]
    assert kinds[2] == "training"
    assert kinds.count("attention") == len(kinds) - kinds.count("attributes") - 2 > 0
    for name, paths in drawn.figures.items():
        assert [p.suffix for p in paths] == [".png", ".svg", ".csv", ".json"]
        assert all(p.parent == runs["msdn"].folder / "figures" for p in paths)
        width, height = Image.open(paths[0]).size
        assert 900 <= width <= 2400
        assert 300 <= height <= 3000
        assert paths[1].read_text().startswith("<?xml")
        caption = json.loads(paths[3].read_text())["caption"]
        assert caption == drawn.captions[name]
        for words in ("msdn on tiny", "test_resnet, 64 px, random, frozen", "honest protocol", "seed 0"):
            assert words in caption
        assert len(pd.read_csv(paths[2])) > (3 if name == "training" else 10)


def test_csv_round_trips(answers, drawn):
    found = pd.read_csv(drawn.figures["tsne"][2])
    order = [answers.dataset.files[i] for i in answers.images]
    rows = [order.index(f) for f in found["file"]]
    assert found["class"].tolist() == [answers.dataset.table.names[c] for c in answers.labels[rows]]
    assert found["predicted"].tolist() == [answers.dataset.table.names[c] for c in answers.predicted[rows]]
    quality = pd.read_csv(drawn.figures["attributes"][2])
    assert tuple(quality["attribute"]) == answers.dataset.table.attributes.names
    summary = json.loads(drawn.figures["attributes"][3].read_text())
    assert summary["measure"] == "auroc"
    assert summary["mean"]["unseen"] == pytest.approx(quality["unseen_auroc"].mean())


def test_the_attention_that_is_drawn_is_the_recognizer_s(runs, answers, drawn):
    name = next(n for n in drawn.figures if n.startswith("attention"))
    cells, about = pd.read_csv(drawn.figures[name][2]), json.loads(drawn.figures[name][3].read_text())
    recognizer = unseen.Recognizer.load(runs["msdn"].folder, device="cpu")
    why = recognizer.explain(about["image"], target=about["target"]["name"], rival=about["rival"]["name"])
    assert set(cells["map"]) == {"a2v", "v2a", "contribution"}
    for entry in about["attributes"]:
        k = why.order[entry["attribute"]]
        for kind, every in {**why.attention, "contribution": why.contributions}.items():
            mine = cells[(cells["attribute"] == entry["attribute"]) & (cells["map"] == kind)]
            np.testing.assert_allclose(mine["value"].to_numpy().reshape(every[k].shape), every[k], rtol=1e-6)
            best = mine.loc[mine["value"].idxmax()]
            assert entry["highest"][kind] == {"x": best["x"], "y": best["y"], "value": best["value"]}
            assert (best["x"], best["y"]) == (16 * best["column"] + 8, 16 * best["row"] + 8)  # 4 x 4 over 64 px
        assert entry["parts"]
    index = answers.find(answers.dataset.images / "/".join(about["image"].split("/")[-2:]))
    frame = answers.dataset.part_positions
    mine = frame[(frame["file"] == answers.dataset.files[index]) & frame["visible"]].set_index("part")
    attributes = answers.dataset.table.attributes
    for entry in about["attributes"]:
        part = attributes.parts[attributes.index(entry["attribute"])]
        assert [(p["part"], p["x"], p["y"]) for p in entry["parts"]] == [(part, *mine.loc[part, ["x", "y"]])]


def test_a_wrong_answer_stands_beside_the_truth(runs, answers, drawn):
    for name, paths in drawn.figures.items():
        if name == "attributes" or not name.startswith("attributes"):
            continue
        about, rows = json.loads(paths[3].read_text()), pd.read_csv(paths[2])
        table = answers.dataset.table
        truth = table.names[answers.dataset.labels[answers.find(answers.dataset.images / about["image"])]]
        assert truth in (about["target"]["name"], about["rival"]["name"])
        unit = table.values / np.linalg.norm(table.values, axis=1, keepdims=True)
        for side, column in (("target", "value"), ("rival", "rival_value")):
            np.testing.assert_allclose(rows[column], unit[table.index(about[side]["name"])], rtol=1e-5)
        assert tuple(rows["attribute"]) == table.attributes.names
        difference = rows["value"] - rows["rival_value"]
        np.testing.assert_allclose(rows["against"], (rows["score"] - rows["typical"]) * difference, atol=1e-6)


def test_a_method_without_attention_says_so_and_goes_on(runs, cache, tmp_path, tiny_guide):
    image = next((tiny_guide / "images").rglob("*.jpg"))
    found = run_figures(runs["eszsl"], tmp_path, images=[image], kinds=("attention", "attributes"), cache=cache,
                        device="cpu", formats=("png",))  # fmt: skip
    assert found.notes == ["attention: eszsl has no attention maps"]
    assert [n.split("-")[0] for n in found.figures] == ["attributes"] * 2
    assert ", seed" not in found.captions["attributes"]  # a closed form has none
    with pytest.raises(UnseenError, match="eszsl has no attention maps"):
        run_figures(runs["eszsl"], tmp_path, images=[image], kinds=("attention",), cache=cache, device="cpu")


def test_training_by_epoch_is_what_was_recorded(runs, drawn):
    found = pd.read_csv(drawn.figures["training"][2])
    for stage in ("validation", "final"):
        lines = (runs["msdn"].folder / f"seed-0/{stage}/metrics.jsonl").read_text().splitlines()
        assert found[found["stage"] == stage]["loss"].tolist() == [json.loads(x)["loss"]["total"] for x in lines]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (
            {"epoch": 3, "by": "H", "validation": {"draws": [{}]}},
            "Epoch 3 was chosen by H on validation classes at its best calibration offset.",
        ),
        (
            {"epoch": 3, "by": "H", "validation": {"draws": [{}, {}]}},
            "Epoch 3 was chosen by H on validation classes at one calibration offset for all 2 draws, so the curves "
            "may peak at another epoch.",
        ),
        (
            {"epoch": 0, "share": 0.5, "by": "T1", "validation": {"draws": [{}, {}]}},
            "Epoch 0 was chosen together with hyperparameters by T1 on validation classes, a mean over 2 draws, so the "
            "curves may peak at another epoch.",
        ),
        (
            {"T1": {"epoch": 1}, "H": {"epoch": 2}, "by": "test set"},
            "Epoch 2 was chosen by H on the test images at calibration offset 0, so the curves may peak at another "
            "epoch.",
        ),
        ({"lambda": 0.5, "by": "H", "validation": {"draws": [{}]}}, ""),
    ],
)
def test_what_the_epoch_was_chosen_by(chosen, expected):
    results = {"protocols": {"honest": {"seeds": {"0": {"chosen": chosen}}}}}
    run = SimpleNamespace(results=results, protocol="honest", config=SimpleNamespace(method="msdn"))
    assert choice_sentence(run, "0") == expected


def test_the_caption_of_a_training_names_the_choice(runs, drawn):
    chosen = runs["msdn"].results["protocols"]["honest"]["seeds"]["0"]["chosen"]
    assert f"Epoch {chosen['epoch']} was chosen by H on validation classes" in drawn.captions["training"]


def test_epochs_of_the_validation_stage_are_means_over_its_draws(tmp_path):
    """The epoch is chosen on their mean; an epoch that only some draws have is left out."""
    for stage, losses in {"validation": (3, 2), "validation-2": (1, 0, 9), "final": (5,)}.items():
        (tmp_path / stage).mkdir()
        lines = [{"epoch": n + 1, "loss": {"total": v}, "metrics": {"T1": v / 10}} for n, v in enumerate(losses)]
        (tmp_path / stage / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    found = mean_epochs(tmp_path, "validation")
    assert [(r["epoch"], r["draws"], r["loss"], r["T1"], r["H"]) for r in found] == [
        (1, 2, 2.0, pytest.approx(0.2), None),
        (2, 2, 1.0, pytest.approx(0.1), None),
    ]
    assert [r["loss"] for r in mean_epochs(tmp_path, "final")] == [5]


def test_a_run_without_test_images_draws_what_it_has(tiny_guide, tiny_backbone, cache, tmp_path):
    """Attribute quality and accuracy over class hold-outs; one line each for what needs test images."""
    shutil.copytree(tiny_guide, tmp_path / "guide")
    (tmp_path / "guide/parts.csv").unlink()
    rows = pd.read_csv(tmp_path / "guide/images.csv")
    rows[rows["split"] == "trainval"].to_csv(tmp_path / "guide/images.csv", index=False)
    options = {"backbone": tiny_backbone, "cache": cache, "device": "cpu", "draws": 1, "holdouts": 2}
    run = unseen.fit("eszsl", tmp_path / "guide", tmp_path / "run", **options)
    found = run_figures(run, cache=cache, device="cpu", formats=("png",))
    assert list(found.figures) == ["attributes", "holdouts"]
    assert [note.split(":")[0] for note in found.notes] == ["tsne", "figures of single images"]
    holdout = run.results["protocols"]["honest"]["holdout"]
    table = pd.read_csv(found.figures["holdouts"][1])
    assert table["T1"].tolist() == pytest.approx([draw["metrics"]["T1"] for draw in holdout["draws"]])
    assert "0 test images" not in found.captions["attributes"]
    image = run_figures(run, tmp_path / "one", images=[next((tmp_path / "guide/images").rglob("*.jpg"))],
                        kinds=("attributes",), cache=cache, device="cpu", formats=("png",))  # fmt: skip
    assert [name.split("-")[0] for name in image.figures] == ["attributes", "attributes"]


def test_a_image_from_elsewhere(runs):
    """No truth, no parts; what the network saw of it is its middle."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 60, 3), dtype=np.uint8))
    recognizer = unseen.Recognizer.load(runs["msdn"].folder, device="cpu")
    why = recognizer.explain(image)
    sheet = attention_sheet(why, recognizer.backbone.transform, Parts(), "odd", "an odd one", "by hand", top=1)
    assert sheet.summary["crop"] == [0, 15, 60, 75]
    assert not sheet.summary["attributes"][0]["parts"]
    assert "Ring" not in sheet.caption
    assert [a.get_title().split("\n")[0] for a in sheet.figure.axes[:4]] == [
        "image", "A2V attention", "V2A attention", "contribution, fused"
    ]  # fmt: skip
    assert sheet.numbers.groupby("map")["y"].agg(["min", "max"]).loc["a2v"].tolist() == [22.5, 67.5]


def test_any_sub_nets_of_any_grid(runs):
    """Names and numbers of sub-nets are the method's affair, and so is the grid of each map."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    recognizer = unseen.Recognizer.load(runs["msdn"].folder, device="cpu")
    why = recognizer.explain(image)
    fine = np.zeros((len(why.order), 8, 8))
    fine[:, 6, 1] = 1
    levels = {"level_1": fine, "level_2": why.attention["a2v"], "level_3": why.attention["v2a"]}
    why = replace(why, attention=levels, counted=("level_1", "level_3"))
    sheet = attention_sheet(why, recognizer.backbone.transform, Parts(), "odd", "an odd one", "by hand", top=2)
    assert [a.get_title().split("\n")[0] for a in sheet.figure.axes[:5]] == [
        "image", "level 1 attention", "level 2 attention (not in the score)", "level 3 attention", "contribution, fused"
    ]  # fmt: skip
    assert "level 2: not part of the class score" in sheet.caption
    assert sheet.summary["grids"] == {"level_1": [8, 8], "level_2": [4, 4], "level_3": [4, 4], "contribution": [4, 4]}
    assert sheet.summary["attributes"][1]["highest"]["level_1"] == {"x": 12, "y": 52, "value": 1}


def test_parts_are_the_visible_ones_that_attributes_name(answers):
    frame = answers.dataset.part_positions
    file = frame.loc[~frame["visible"].astype(bool), "file"].iloc[0]
    hidden = set(frame.loc[(frame["file"] == file) & ~frame["visible"].astype(bool), "part"])
    parts = Parts.of(answers.dataset, file).points
    named = dict(zip(answers.dataset.table.attributes.names, answers.dataset.table.attributes.parts, strict=True))
    assert all(named[a] not in hidden for a in parts)
    assert all(named[a] in hidden for a in set(named) - set(parts))


def test_images_that_are_gone_are_one_line(tiny_guide, tiny_backbone, tmp_path):
    guide, cache = tmp_path / "guide", tmp_path / "cache"
    shutil.copytree(tiny_guide, guide)
    run = unseen.fit("eszsl", guide, tmp_path / "run", backbone=tiny_backbone, cache=cache, device="cpu", draws=1)
    shutil.rmtree(guide / "images")
    with pytest.raises(DataError, match=r"none of the 72 images is in .*guide/images") as caught:
        run_figures(run, cache=cache, device="cpu")
    assert "\n" not in str(caught.value)
    shutil.rmtree(guide)
    with pytest.raises(DataError, match="guide: no such folder"):
        run_figures(run, cache=cache, device="cpu")


def test_mistakes(runs, cache, tmp_path):
    for options, text in (
        ({"kinds": ("umap",)}, 'no figure "umap" — use one of tsne, attention, attributes, training'),
        ({"formats": ("gif",)}, 'unknown figure format "gif" — use one of png, svg, pdf'),
        ({"formats": ()}, "no figure format"),
        ({"seed": 7}, "no seed 7 — use one of 0"),
    ):
        with pytest.raises(UnseenError, match=text):
            run_figures(runs["eszsl"], tmp_path / "out", cache=cache, device="cpu", **options)
    assert not (tmp_path / "out").exists()
    copy = tmp_path / "unfinished"
    shutil.copytree(runs["eszsl"].folder, copy)
    (copy / "results.json").unlink()
    with pytest.raises(RunError, match="unfinished"):
        run_figures(unseen.Run(copy), cache=cache, device="cpu")
