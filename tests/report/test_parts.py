"""Charts, quality, mix-ups, words and the command line of the report, apart from pages."""

from __future__ import annotations

import shlex
from dataclasses import replace
from types import SimpleNamespace
from typing import Annotated, Any, cast

import click
import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from unseen.backbones.spec import BackboneSpec
from unseen.classes.attributes import Attributes
from unseen.classes.presence import present
from unseen.classes.table import ClassTable
from unseen.cli.configuring import pairs
from unseen.cli.options import RunOptions, with_run_options
from unseen.evaluation.metrics import Decisions
from unseen.report.charts import HEIGHT, LEFT, TOP, WIDTH, Axis, Chart, Dot, Line, Mark, thinned, ticks
from unseen.report.command import train_command, train_words
from unseen.report.confusions import confusions
from unseen.report.curves import reliability_chart, risk_coverage_chart, seen_unseen_chart
from unseen.report.material import Material
from unseen.report.page import commands
from unseen.report.quality import class_order, class_rows, hardly_varying, mistakes
from unseen.report.summary import by_chance, could_try_more, hardly_recognized, in_words, paragraph, sureness
from unseen.report.tables import paper_choice, validation_words
from unseen.training.config import RunConfig
from unseen.training.plan import default_backbone


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.05, [0, 0.01, 0.02, 0.03, 0.04, 0.05]),
        (1, 15, [2.5, 5, 7.5, 10, 12.5, 15]),
        (0, 30, [0, 5, 10, 15, 20, 25, 30]),
    ],
)
def test_ticks(low, high, expected):
    assert ticks(low, high) == expected


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_lie_inside_and_are_few(low, span):
    found = ticks(low, low + span)
    assert len(found) <= 12
    room = 1e-6 * max(abs(low), span)
    assert all(low - room <= v <= low + span + room for v in found)


@pytest.mark.parametrize(
    ("picked", "expected"),
    [
        ({"epoch": 3}, "paper: the epoch is chosen on the test set."),
        ({"gamma": 1.0, "lambda": 10.0}, "paper: hyperparameters are chosen on the test set."),
        ({"epoch": 2, "share": 0.5}, "paper: the epoch and hyperparameters are chosen on the test set."),
        ({}, "paper: there is nothing to choose on the test set."),
    ],
)
def test_what_paper_chooses_on_the_test_set(picked, expected):
    found = {"seeds": {"0": {"chosen": {"T1": {}, "H": picked, "by": "test set"}}}}
    run: Any = SimpleNamespace(results={"protocols": {"paper": found, "honest": {}}})
    assert paper_choice(run) == expected
    assert paper_choice(cast(Any, SimpleNamespace(results={"protocols": {"honest": {}}}))) == ""


def test_thinned_keeps_the_ends():
    x = np.arange(10_000.0)
    y = np.where(x % 7 == 0, np.nan, x)
    a, b = thinned(x, y, 100)
    assert len(a) == 100
    assert (a[0], a[-1]) == (1, 9999)
    assert (a == b).all()


def test_places_in_a_chart():
    axis = Axis("x", 0, 2), Axis("y", 0, 1, True)
    chart = Chart("c", "t", "s", *axis, [Line([0, 1, 2], [0, 0.5, 1])], [Dot(1, 1, 0, 1, "")], [Mark(2, 1, "m")])
    left, right, top, bottom = LEFT, WIDTH - 16, TOP, HEIGHT - 46
    assert chart.path(
        chart.lines[0]
    ) == f"M{left:.1f},{bottom:.1f} L{(left + right) / 2:.1f},{(top + bottom) / 2:.1f}" + (f" L{right:.1f},{top:.1f}")
    assert chart.across(5) == right  # outside: at the edge
    assert chart.ticks_y()[0] == (bottom, "0%")
    assert chart.ticks_y()[-1] == (top, "100%")
    assert chart.drawn_marks() == [(right, top, "m", "end", right - 9, top + 20)]
    assert chart.dots[0].radius == 10


def material(labels, named, seen, values=None, seeds=1):
    """A run of these answers, without images; every class named is the best of its kind."""
    seen = np.array(seen)
    n = len(seen)
    labels, named = np.array(labels), np.array(named)
    best_seen = np.where(seen[named], named, np.flatnonzero(seen)[0])
    best_unseen = np.where(seen[named], np.flatnonzero(~seen)[0], named)
    offset = np.where(seen[named], 1.0, -1.0)
    leading, scores = (np.stack(both, axis=1)[:, :, None] for both in ((best_seen, best_unseen), (offset, 0 * offset)))
    decisions = Decisions(labels, leading, scores, ~seen[labels])
    attributes = Attributes(tuple(f"has_part::{k}" for k in range(np.shape(values)[1]))) if values is not None else None
    values = np.eye(n) if values is None else np.array(values, float)
    table = ClassTable(
        tuple(f"{c:03d}.class_{c}" for c in range(n)), attributes or Attributes(tuple("abcdefgh"[:n])), values, seen
    )
    per_class = [
        {
            "class": table.names[c],
            "seen": bool(seen[c]),
            "images": int((labels == c).sum()),
            "among_all": float((named == c)[labels == c].mean()) if (labels == c).any() else None,
            "among_unseen": None,
        }
        for c in range(n)
    ]
    found = {
        "seeds": {str(s): {"gamma": 0.0} for s in range(seeds)},
        "per_class": per_class,
        "metrics": {},
    }
    manifest = {"data": {"test_seen": int(seen[labels].sum()), "test_unseen": int((~seen[labels]).sum())}}
    run = SimpleNamespace(results={"protocols": {"honest": found}}, protocol="honest", manifest=manifest)
    return Material(run, table, {str(s): decisions for s in range(seeds)})


@pytest.mark.parametrize(
    ("unseen", "told"),
    [(1, "test image of that class, so the accuracy on it is"), (3, "test image of the 3, so the accuracy on them is")],
)
def test_classes_without_test_images_agree_with_their_number(unseen, told):
    data = {"classes_unseen": unseen, "classes_seen": 4, "trainval": 80}
    metrics = {name: {"mean": None} for name in ("T1", "U", "S")}
    said = paragraph(SimpleNamespace(manifest={"data": data}, found={"metrics": metrics}, holdout=None, set_aside=0))
    assert f"There is no {told} unknown." in said
    assert f"and knows {unseen} more from {'its' if unseen == 1 else 'their'} attributes alone" in said[0]


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, True),
        ({"method": "msdnpp", "raced": True}, True),
        ({"method": "msdnpp"}, False),
        ({"time": 60.0}, False),
        ({"backbone": BackboneSpec("test_resnet", weights="random", zoom=2)}, False),
        ({"backbone": BackboneSpec("features:mine", weights="x")}, False),
    ],
)
def test_what_a_time_would_let_a_run_try(changes, more):
    config = RunConfig(**{"method": "auto", "dataset": "/d", "backbone": BackboneSpec("test_resnet")} | changes)
    assert could_try_more(config) is more


def test_what_chance_does_to_accuracies_is_said_for_images_and_for_classes():
    few = {"mean": 0.5, "low": 0.48, "high": 0.52}
    many = {"mean": 0.9, "low": 0.85, "high": 0.93, "low_classes": 0.7, "high_classes": 0.98}
    sure = {"mean": 1.0, "low": 1.0, "high": 1.0}
    same = "With other images of the same classes, these accuracies would move by about"
    assert by_chance([few, many]) == f"{same} ±4 points, with other classes of this kind by about ±14 points."
    assert by_chance([few, sure]) == f"{same} ±2 points, with other classes by more."
    assert by_chance([sure]).endswith("would hardly change; with other classes, perhaps more than that.")
    assert by_chance([sure | {"low_classes": 0.9, "high_classes": 1.0}]).endswith("perhaps by about ±5 points.")
    one = {"mean": 0.5, "low": 0.49, "high": 0.51}
    said = by_chance([one], "the accuracy on seen classes")
    assert said.startswith(
        "With other images of the same classes, the accuracy on seen classes would move by about ±1 point,"
    )
    assert by_chance([{"mean": None, "low": None, "high": None}]) == ""


def test_commands_are_code_and_all_else_is_escaped():
    text = "`unseen classes images` adds <b> of `a` & `b`."
    assert commands(text) == "<code>unseen classes images</code> adds &lt;b&gt; of `a` &amp; `b`."


def test_mistakes_by_hand():
    #         class 2 (unseen): 3 of 4 wrong, twice as 0; class 1: right; class 3 has no image
    m = material([2, 2, 2, 2, 1, 1], [0, 0, 3, 2, 1, 1], [True, True, False, False], seeds=2)
    assert mistakes(m) == {2: (0, 0.5)}
    rows = class_rows(m)
    assert [(r.name, r.mistaken, r.mistaken_share) for r in rows][2] == ("class 2", "class 0", 0.5)
    assert class_order(rows) == [2, 3, 1, 0]  # unseen, then seen; without images last


def test_what_is_hardly_recognized_is_said_with_what_it_is_taken_for():
    labels = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    few = hardly_recognized(material(labels, [1, 1, 1, 2, 1, 1, 1, 1, 2, 2, 2, 2], [True, True, False]))
    assert few == (
        "class 0 is hardly ever recognized, although there are training images: check its images and its row in the "
        "table. The model takes images of class 0 most often for class 1 (75% of its 4 test images)."
    )
    both = hardly_recognized(material(labels, [1, 1, 1, 2, 0, 2, 2, 2, 2, 2, 2, 2], [True, True, False]))
    assert both.startswith("class 0 and class 1 are hardly ever recognized")
    assert both.endswith(
        "class 0 most often for class 1 (75% of its 4 test images) and "
        "class 1 most often for class 2 (75% of its 4 test images)."
    )
    assert hardly_recognized(material(labels, labels, [True, True, False])) == ""


def test_mix_ups_name_what_is_shared_and_what_differs():
    values = [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 0]]
    m = material([2, 2, 2, 2, 3, 3], [3, 3, 3, 2, 3, 3], [True, True, False, False], values)
    (found,) = confusions(m)
    assert (found.name, found.taken_for, found.share, found.images) == ("class 2", "class 3", 0.75, 4)
    assert sorted(found.shared) == ["part: 0", "part: 2"]
    assert [(d.name, d.more, d.auroc) for d in found.differences] == [("part: 1", False, None)]
    assert found.differing == 1
    assert found.alike == pytest.approx(2 / np.sqrt(6))


def test_equal_classes_are_said_to_be_equal():
    values = [[1, 0], [0, 1], [1, 1], [2, 2]]
    (found,) = confusions(material([2, 2, 3], [3, 3, 3], [True, True, False, False], [*values]))
    assert found.alike == pytest.approx(1)
    values[3] = [1, 1]
    (found,) = confusions(material([2, 2, 3], [3, 3, 3], [True, True, False, False], [*values]))
    assert not found.differences
    assert "no model can separate them" in found.advice


def test_an_attribute_hardly_varies_if_all_classes_but_one_have_its_value():
    #         one class, two classes, one above half but graded below it, within a tenth of the range
    values = [[0, 0, 0.0, 5], [0, 0, 0.25, 5.05], [1, 1, 0.5, 5], [0, 1, 1.0, 5], [0, 0, 0.3, 6]]
    table = ClassTable(
        tuple("abcde"), Attributes(tuple("wxyz")), np.array(values, float), np.array([1, 1, 1, 1, 0], bool)
    )
    assert hardly_varying(table).tolist() == [True, False, False, True]


def test_present_is_above_half_of_the_largest():
    assert present(np.array([[100, 0.0], [50, 0], [51, 0]])).tolist() == [[True, False], [False, False], [True, False]]


def test_seen_unseen_chart_marks_the_gamma():
    m = material([0, 0, 2, 2], [0, 0, 2, 0], [True, True, False, False])
    chart = seen_unseen_chart(m)
    assert (chart.marks[0].x, chart.marks[0].y) == (1, 0.5)
    assert "50% on unseen and 100% on seen" in chart.says
    assert seen_unseen_chart(material([0, 0], [0, 1], [True, True, False, False])) is None


def test_calibration_charts_leave_gaps_out():
    assert reliability_chart("test", {}) is None
    assert risk_coverage_chart({}) is None
    chart = reliability_chart(
        "test", {"reliability": {"confidence": [None, 0.5], "accuracy": [None, 0.25], "count": [0, 8]}}
    )
    assert [(d.x, d.y, d.foot, d.weight) for d in chart.dots] == [(0.5, 0.25, 0.5, 1.0)]
    side = {"risk_coverage": {"coverage": [1.0, 0.5], "risk": [0.5, 0.25], "threshold": [0.1, 0.9]}}
    chart = risk_coverage_chart({"threshold": None, "test": side, "validation": None})
    assert not chart.marks
    assert chart.lines[0].x == (0.5, 1.0)
    assert "50% of the answers on test images are wrong" in chart.says


@pytest.mark.parametrize(
    ("share", "said"), [(0.645, "64 of 100"), (1.0, "100 of 100"), (0.996, "99.6 of 100"), (0, "0 of 100")]
)
def test_in_words(share, said):
    assert in_words(share) == said


OTHER = BackboneSpec(
    "test_resnet",
    weights="random",
    image_size=64,
    options={"output_stride": 16, "pad_type": "same", "width": "7"},
    mean=(0.1, 1 / 3, 0.5),
    std=(0.5, 0.5, 0.25),
    crop=0.875,
    pixels="fast",
    zoom=2,
)
CONFIGS = [
    RunConfig(method="eszsl", dataset="fieldguide", backbone=default_backbone("fieldguide")),
    RunConfig(
        method="msdn",
        dataset="/data/my birds; rm -rf",
        backbone=OTHER,
        preset="recommended",
        settings={"lambda_cal": "0.2"},
        recipe={"epochs": "3", "lr": "1e-3"},
        vectors="random",
        protocols=("honest", "paper"),
        seeds=(0, 1, 2),
        split_seed=4,
        folds="axes",
        select="T1",
        store_dtype="bfloat16",
        precision="64-true",
        accumulate=2,
    ),
    RunConfig(
        method="msdnpp", dataset="/data/x", backbone=default_backbone("fieldguide"), protocols=("paper",), seeds=(214,)
    ),
    RunConfig(method="mgmrn", dataset="/data/x", backbone=BackboneSpec("resnet50", (1, 2, 3), 224), seeds=(7, 1)),
    RunConfig(method="mgmrn", dataset="/data/x", backbone=BackboneSpec("resnet50", weights="random")),
    RunConfig(method="anchored", dataset="fieldguide", backbone=default_backbone("fieldguide")),
    RunConfig(method="prototypes", dataset="/data/x", backbone=BackboneSpec("resnet50", ("-2+final",), 224)),
]


def test_of_the_drawn_network_anchored_reads_an_earlier_map_too_unless_told():
    drawn = default_backbone("fieldguide")
    named = replace(drawn, stages=(-1,))

    def stages(method, backbone):
        return RunConfig(method=method, dataset="fieldguide", backbone=backbone).backbone.stages

    assert stages("anchored", drawn) == ("-2+final",)
    assert stages("anchored", named) == (-1,)
    assert stages("anchored", BackboneSpec("resnet50")) == stages("eszsl", drawn) == ("final",)
    assert "--stage" not in train_words(CONFIGS[-2])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.method)
def test_the_command_makes_the_same_run(config, monkeypatch):
    """The words, read by the options that every training command shares, give the configuration again."""
    read = {}
    monkeypatch.setattr("pathlib.Path.is_dir", lambda self: True)

    @with_run_options
    def train(
        dataset: str,
        method: str = "",
        protocol: str = "honest",
        seeds: str = "1",
        preset: str | None = None,
        setting: Annotated[list[str] | None, typer.Option("--set")] = None,
        recipe: list[str] | None = None,
        *,
        options: RunOptions,
    ) -> None:
        entries = options.entries(dataset, protocol, seeds)
        changes = {"settings": pairs(setting or [], "--set"), "recipe": pairs(recipe or [], "--recipe")}
        read["config"] = RunConfig(method=method, preset=preset, **changes, **entries)

    app = typer.Typer()
    app.command()(train)
    words = shlex.split(train_command(config))
    assert words == train_words(config)
    assert words[:2] == ["unseen", "train"]
    try:
        typer.main.get_command(app)(words[2:], standalone_mode=False)
    except click.ClickException as error:
        pytest.fail(error.format_message())
    assert read["config"].to_json() == config.to_json()


def test_the_command_of_a_race_names_what_was_asked():
    won = RunConfig(
        method="msdnpp", dataset="fieldguide", backbone=default_backbone("fieldguide"), raced=True, time=180
    )
    assert train_command(won) == "unseen train fieldguide --method auto --time 180s"


@pytest.mark.parametrize(
    ("images", "sure"), [(8, "move by about ±10 points"), (1, "too few test images per class for reliable")]
)
def test_intervals_of_hardly_any_images_are_not_believed(images, sure):
    labels = [0, 1, 2] * images
    m = material(labels, labels, [True, True, False])
    entry = {"mean": 0.5, "std": 0.0, "low": 0.4, "high": 0.6}
    m.found["metrics"] |= {"S": entry, "AUSUC": {"mean": 0.5, "std": 0.0, "low": None, "high": None}}
    assert sure in " ".join(sureness(m))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "2 validation classes, draw 1 with seed 0"),
        ({"validation_draws": 1}, "2 validation classes, draw 1 with seed 0"),
        ({"validation_draws": 3}, "2 validation classes, draw 1 with seed 0, the first of 3 draws"),
    ],
)
def test_validation_classes_of_one_draw_are_not_taken_for_all(more, said):
    assert validation_words({"validation_source": "2 validation classes, draw 1 with seed 0", **more}) == said
