"""The HTML report of a run: one self-contained file, with pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from unseen.data.catalogue import cache_folder
from unseen.data.dataset import Dataset
from unseen.explain.figures import account, label, overlay, said, thumbnail
from unseen.files import write_text
from unseen.progress import Report, silent
from unseen.recognizer import Explanation, Recognizer
from unseen.report.tables import chance, percent, result_rows, shared_columns
from unseen.training.run import METRICS, Plan, Run

EXAMPLES = 6


@dataclass(frozen=True)
class Example:
    """One test picture with the reasons for its answer, ready for the page."""

    file: str
    truth: str
    picture: str
    answers: list[dict[str, Any]]
    right: bool
    heats: list[dict[str, str]]
    reasons: list[dict[str, Any]]
    against: str


def data_uri(picture: Image.Image, quality: int = 88) -> str:
    """A picture as JPEG inside the page."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _example(dataset: Dataset, index: int, explanation: Explanation) -> Example:
    truth = dataset.table.names[dataset.labels[index]]
    shown = explanation.looked_for(3)
    heats = [
        {
            "title": label(r.attribute),
            "picture": data_uri(
                thumbnail(overlay(explanation.picture, explanation.heat(r.attribute), explanation.crop))
            ),
        }
        for r in shown
    ]
    strongest, rest = account(explanation, 6)
    bars = [(said(r), r.against) for r in sorted(strongest, key=lambda r: -r.against)]
    bars += [(name, against) for name, _, against in rest]
    largest = max(abs(value) for _, value in bars) or 1.0
    return Example(
        dataset.files[index],
        truth,
        data_uri(thumbnail(explanation.picture)),
        [
            {"name": c.name, "seen": c.seen, "confidence": percent(c.confidence, 0), "true": c.name == truth}
            for c in explanation.prediction.candidates[:3]
        ],
        explanation.prediction.best.name == truth,
        heats,
        [
            {
                "name": name,
                "value": f"{value:+.2f}",
                "width": round(50 * abs(value) / largest, 1),
                "positive": value > 0,
            }
            for name, value in bars
        ],
        explanation.rival.name,
    )


def _examples(recognizer: Recognizer, dataset: Dataset, report: Report) -> tuple[list[Example], list[Example]]:
    """Unseen test pictures, one a class in turn: some that are named right and some that are not.

    Chosen by a fixed draw, not by looks: the first right and the first wrong ones of a seeded order.
    """
    rng = np.random.default_rng(0)
    pictures = dataset.indices("test_unseen")
    if not len(pictures):
        pictures = dataset.indices("test_seen")
    order = rng.permutation(pictures)
    turn = np.zeros(len(order), dtype=int)
    counts: dict[int, int] = {}
    for i, index in enumerate(order):
        turn[i] = counts.get(dataset.labels[index], 0)
        counts[dataset.labels[index]] = turn[i] + 1
    order = order[np.argsort(turn, kind="stable")][: 12 * EXAMPLES]
    paths = [dataset.images / dataset.files[i] for i in order]
    right: list[int] = []
    wrong: list[int] = []
    for done, (index, prediction) in enumerate(zip(order, recognizer.predict(paths, top=1), strict=True)):
        hit = prediction.best.name == dataset.table.names[dataset.labels[index]]
        (right if hit else wrong).append(index)
        report("choosing examples", done + 1, len(order))
        if len(right) >= EXAMPLES and len(wrong) >= EXAMPLES:
            break
    report("choosing examples", len(order), len(order))
    chosen = [right[:EXAMPLES], wrong[:EXAMPLES]]
    made = [
        [_example(dataset, i, recognizer.explain(dataset.images / dataset.files[i])) for i in group] for group in chosen
    ]
    return made[0], made[1]


def _confusions(run: Run, dataset: Dataset) -> list[dict[str, str]]:
    """Unseen classes most often taken for another one, with what the two share and what tells them apart."""
    found = run.results["protocols"][run.protocol].get("confusions", [])
    table = dataset.table
    rows = []
    for entry in found[:8]:
        a, b = table.index(entry["class"]), table.index(entry["taken_for"])
        gap = table.values[a] - table.values[b]
        order = np.argsort(-np.abs(gap), kind="stable")[:3]
        differs = ", ".join(
            f"{label(table.attributes.names[k])} ({'more' if gap[k] > 0 else 'less'})" for k in order if gap[k]
        )
        rows.append(
            {
                "class": entry["class"],
                "taken_for": entry["taken_for"],
                "share": percent(entry["share"], 0),
                "differs": differs or "nothing: the attributes are equal",
            }
        )
    return rows


def summary_sentences(run: Run) -> list[str]:
    """What the numbers say, in plain words."""
    found = run.results["protocols"][run.protocol]["metrics"]
    data = run.manifest["data"]
    sentences = []
    if found["T1"]["mean"] is not None:
        ratio = found["T1"]["mean"] / chance(run)
        sentences.append(
            f"Told that a picture shows one of the {data['classes_unseen']} classes it was never shown, the model "
            f"names the right one {percent(found['T1']['mean'], 0)}% of the time; guessing would be right "
            f"{percent(chance(run), 0)}% of the time ({ratio:.1f} times better than chance)."
        )
        sentences.append(
            f"When it may answer with any of the {data['classes_seen'] + data['classes_unseen']} classes, it is right "
            f"for {percent(found['U']['mean'], 0)}% of the unseen and {percent(found['S']['mean'], 0)}% of the seen "
            f"classes' pictures (harmonic mean H = {percent(found['H']['mean'])}%)."
        )
    how = {
        "honest": "Everything that was chosen (training length, calibration) was chosen on validation classes taken "
        "from the seen ones; the test pictures were used once.",
        "paper": "The training length was chosen on the test pictures, as papers of the field do; expect less on "
        "pictures that nobody has looked at yet.",
    }
    last = how[run.protocol]
    if len(run.config.protocols) > 1:
        last += " In the table, rows called paper chose the training length on the test pictures, as the field does."
    return [*sentences, last]


def write_report(
    run: Run,
    *,
    others: Sequence[Run] = (),
    path: Path | None = None,
    device: str = "auto",
    cache: Path | str | None = None,
    report: Report = silent,
) -> Path:
    """Write ``report.html`` into a run's folder.

    Args:
        run: a finished run; the examples are its first seed's.
        others: runs to stand beside it in the table.
        path: the page to write; default ``report.html`` in the run's folder.
        device: where to compute the examples.
        cache: see :func:`unseen.data.catalogue.cache_folder`.
        report: progress.

    Returns:
        The page's path.
    """
    plan = Plan.of(run.config, cache_folder(cache), report)
    recognizer = Recognizer.load(run.folder, device=device, as_trained=True)
    right, wrong = _examples(recognizer, plan.dataset, report)
    found = run.results["protocols"][run.protocol]
    rows = result_rows([*others, run])
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unseen.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html").render(
        title=f"{run.manifest['method']['name']} on {run.manifest['data']['name']}",
        sentences=summary_sentences(run),
        rows=rows,
        several_seeds=any(len(p["seeds"]) > 1 for r in (*others, run) for p in r.results["protocols"].values()),
        shared=shared_columns(rows),
        metrics=METRICS,
        right=right,
        wrong=wrong,
        confusions=_confusions(run, plan.dataset),
        per_class=[
            {**row, "among_all": percent(row["among_all"], 0), "among_unseen": percent(row["among_unseen"], 0)}
            for row in sorted(found["per_class"], key=lambda r: (r["seen"], r["among_all"] or 0))
        ],
        manifest=run.manifest,
        warnings=run.manifest["warnings"],
        protocol=run.protocol,
        chance=percent(chance(run)),
        attention=bool(right or wrong) and _has_attention(recognizer),
        seconds=run.results["seconds"],
        memory=run.results["peak_memory_mb"],
    )
    target = path or run.folder / "report.html"
    write_text(target, page)
    return target


def _has_attention(recognizer: Recognizer) -> bool:
    from PIL import Image

    size = recognizer.backbone.transform.size
    return bool(recognizer.explain(Image.new("RGB", (size, size))).attention)
