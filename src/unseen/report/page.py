"""The HTML report of a run: one self-contained file with images, to read, print and share."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from unseen.data.dataset import Dataset
from unseen.evaluation.registry import chosen_metrics, every_metric, sentence
from unseen.explain.sheet import class_label
from unseen.ground.files import write_text
from unseen.ground.progress import Progress, silent
from unseen.ground.words import counted
from unseen.report.cards import MOST_NAMED, data_card, model_card, repeat
from unseen.report.confusions import confusions
from unseen.report.curves import reliability_chart, risk_coverage_chart, seen_unseen_chart, training_charts
from unseen.report.examples import EXAMPLES, make_examples
from unseen.report.material import Material, gather
from unseen.report.quality import (
    GOOD,
    MOST_ATTRIBUTES,
    MOST_CLASSES,
    MOST_THUMBNAILS,
    POOR,
    attribute_section,
    class_images,
    class_order,
    class_rows,
)
from unseen.report.summary import advice, foreseen, key_figures, paragraph, sureness
from unseen.report.tables import (
    coarser_sentences,
    percent,
    race_rows,
    race_sentence,
    rank_rows,
    result_rows,
    shared_columns,
)
from unseen.training.folder import Run


def write_report(
    run: Run,
    *,
    others: Sequence[Run] = (),
    path: Path | None = None,
    examples: int = EXAMPLES,
    device: str = "auto",
    cache: Path | str | None = None,
    workers: int = 0,
    progress: Progress = silent,
    dataset: Dataset | None = None,
) -> Path:
    """Write ``report.html`` into a run's folder.

    If the images are gone, the page has no examples, and attribute quality from class hold-outs only, and says so.

    Args:
        run: a finished run; examples, attributes and charts belong to its first seed.
        others: further runs for the table of results.
        path: page to write; by default ``report.html`` in the run's folder.
        examples: number of images predicted correctly, and of images predicted wrongly.
        device, cache, workers, progress: see :func:`unseen.training.run.fit`.
        dataset: that of the run, if it has been read already.

    Returns:
        Path of the page.

    Raises:
        RunError: the run is unfinished.
    """
    material = gather(run, device=device, cache=cache, workers=workers, progress=progress, dataset=dataset)
    page = (
        environment()
        .get_template("report.html")
        .render(**_sections(material, examples, progress), **_results([*others, run]))
    )
    target = path or run.folder / "report.html"
    write_text(target, page)
    return target


def environment() -> jinja2.Environment:
    """Templates that escape everything except their own text."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("unseen.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assert made.loader is not None
    script = made.loader.get_source(made, "report/script.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    made.globals.update(script=script, script_digest=digest, count=counted)
    made.filters.update(percent=percent, class_label=class_label, commands=commands)
    return made


def commands(text: str) -> Markup:
    """Text with commands in backticks, as the terminal prints them, as HTML."""
    return Markup(re.sub(r"`(unseen [a-z ]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - it is escaped


def _results(runs: Sequence[Run]) -> Mapping[str, Any]:
    """The table of results of one or several runs."""
    rows = result_rows(runs, list(every_metric()))
    protocols = [p for r in runs for p in r.results["protocols"].values()]
    return {
        "rows": rows,
        "shared": shared_columns(rows),
        "meanings": {m: sentence(every_metric()[m].meaning) for m in chosen_metrics()},
        "metrics": [m for m in every_metric() if any(row[m] != "–" for row in rows)],
        "several_seeds": any(len(p["seeds"]) > 1 for p in protocols),
    }


def _sections(material: Material, examples: int, progress: Progress) -> Mapping[str, Any]:
    """The data that every section of the page uses."""
    manifest = material.manifest
    mixed, attributes = confusions(material), attribute_section(material)
    rows = class_rows(material)
    shown, aside = class_order(rows)[:MOST_CLASSES], material.found.get("holdout")
    calibration = {seed: found.get("calibration") for seed, found in material.found["seeds"].items()}
    mine = calibration[material.seed] or {}
    reliability = [reliability_chart(side, mine.get(side) or {}) for side in ("test", "validation")]
    return {
        "title": f"{manifest['method']['name']} on {manifest['data']['name']}",
        "material": material,
        "manifest": manifest,
        "protocol": material.run.protocol,
        "paragraph": paragraph(material),
        "sureness": sureness(material),
        "figures": key_figures(material),
        "foreseen": foreseen(material),
        "advice": advice(material, mixed, attributes),
        "examples": make_examples(material, examples, progress),
        "confusions": mixed,
        "classes": [(rows[c], c) for c in shown],
        "class_images": class_images(material, shown[:MOST_THUMBNAILS]),
        "classes_left": len(rows) - len(shown),
        "attributes": attributes,
        "most_attributes": MOST_ATTRIBUTES,
        "good": GOOD,
        "poor": POOR,
        "calibration": calibration if any(calibration.values()) else None,
        "mine": mine,
        "calibration_charts": [c for c in (*reliability, risk_coverage_chart(mine)) if c is not None],
        "seen_unseen": seen_unseen_chart(material),
        "training": training_charts(material),
        "race": race_rows(material.run.results),
        "race_sentence": race_sentence(material.run.results),
        "ranks": rank_rows(material.found),
        "rank_holdouts": rank_rows(aside, len(aside["draws"])) if aside else [],
        "coarser": coarser_sentences(material.found),
        "data": data_card(material),
        "model": model_card(material),
        "repeat": repeat(material),
        "most_named": MOST_NAMED,
    }
