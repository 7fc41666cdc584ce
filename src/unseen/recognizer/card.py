"""The model card of a saved recognizer: metadata for the hub, and facts for readers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from unseen.evaluation.coarser import answers_in_words
from unseen.evaluation.registry import chosen_metrics, every_metric
from unseen.ground.words import size_text
from unseen.version import __version__

if TYPE_CHECKING:
    from unseen.model.trained import TrainedModel

LISTED = 60
"""Number of seen and of unseen class names that the card lists."""
NOT_STATED = "not stated"
# identifiers that the hub knows; other licenses are given by name
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{1,40}")
_SPECIAL = re.compile(r"([\\`*_\[\]|~])")


@dataclass(frozen=True)
class CardFields:
    """Facts that only the author knows; "not stated" by default.

    Args:
        license: license of the model, such as ``apache-2.0`` or ``cc-by-4.0``.
        data_license: license of the training images and tables.
        data_source: owner and source of the training data.
        author: author of the model.
        contact: contact for questions.
        datasets: hub datasets that the model was trained on.
    """

    license: str = NOT_STATED
    data_license: str = NOT_STATED
    data_source: str = NOT_STATED
    author: str = NOT_STATED
    contact: str = NOT_STATED
    datasets: tuple[str, ...] = ()


class _Markdown(str):
    """Text that is already escaped."""


def escaped(value: Any) -> str:
    """Escape text so that Markdown shows it literally within a line: no markup, no HTML, no line break."""
    if isinstance(value, _Markdown):
        return value
    text = "".join(c if c.isprintable() else " " for c in str(value))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def model_card(model: TrainedModel, fields: CardFields, *, backbone_stored: bool) -> str:
    """The card as Markdown.

    Args:
        model: model to describe, with the facts about its training in ``about``.
        fields: facts from the author.
        backbone_stored: whether the backbone's weights are stored beside the card.
    """
    about, table, method = model.about, model.table, model.method
    data, machine, versions = (_part(about, name) for name in ("data", "machine", "versions"))
    names = {
        kind: [name for name, seen in zip(table.names, table.seen, strict=True) if seen == (kind == "seen")]
        for kind in ("seen", "unseen")
    }
    card = getattr(method, "card", None) or getattr(method.head, "card")  # noqa: B009
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unseen.recognizer", "."),
        autoescape=jinja2.select_autoescape(),  # Markdown is escaped by finalize
        undefined=jinja2.ChainableUndefined,
        finalize=escaped,
        trim_blocks=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
    )
    spec = model.backbone.spec
    body = environment.get_template("card.md.jinja").render(
        version=__version__,
        title=f"{method.name} on {data.get('name', 'own data')}",
        counts={kind: len(own) for kind, own in names.items()},
        names={kind: _listed(own) for kind, own in names.items()},
        attributes=table.attributes.names,
        method=method.name,
        card=card,
        fields=fields,
        about=about,
        data=data,
        machine=machine,
        versions={"unseen": about.get("unseen", __version__), **versions},
        seeds=", ".join(map(str, about["seeds"])) if isinstance(about.get("seeds"), list) else "",
        backbone=_backbone(model),
        backbone_stored=backbone_stored,
        size=size_text(spec.image_size, spec.zoom, spec.mirror),
        rows=_rows(about),
        calibration=_calibration(about),
        gamma=f"{model.gamma:.4g}",
        temperature=None if model.temperature is None else f"{model.temperature:.4g}",
        threshold=None if model.threshold is None else f"{model.threshold:.3g}",
        ranks=_ranks(about),
        coarser=_coarser(about),
        settings=_Markdown(", ".join(escaped(f"{k}={v}") for k, v in vars(method.settings).items())),
        encoding=model.encoding is not None,
        takes_images=model.takes_images,
        images=[
            (
                name,
                f"{len(mine.images)}{'' if mine.attributes else ', no attributes'}",
                f"{min(image.added for image in mine.images)[:10]} to {max(image.added for image in mine.images)[:10]}",
            )
            for name, mine in model.support.classes.items()
        ],
    )
    return f"---\n{_front_matter(model, fields)}---\n\n{body}"


def _front_matter(model: TrainedModel, fields: CardFields) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    about, method = model.about, model.method.name
    name = _plain(_part(about, "data").get("name", "own data"))
    spec = model.backbone.spec
    known = fields.license.lower() if _LICENSE.fullmatch(fields.license.lower()) else None
    license: dict[str, Any] = {}
    if fields.license != NOT_STATED:
        license = {"license": known} if known else {"license": "other", "license_name": _plain(fields.license)}
    results = [
        EvalResult(
            task_type="zero-shot-image-classification",
            dataset_type=re.sub(r"[^\w.-]+", "-", name).lower(),
            dataset_name=name,
            metric_type="accuracy",
            metric_name=f"{metric} ({every_metric()[metric].meaning}; {about.get('protocol')} protocol)",
            metric_value=round(value["mean"], 4),
        )
        for metric, value in _measured(about).items()
        if metric in chosen_metrics()
    ]
    more: dict[str, Any] = {"model_name": f"{method} on {name}", "eval_results": results} if results else {}
    data = ModelCardData(
        library_name="unseen",
        pipeline_tag="zero-shot-image-classification",
        tags=["zero-shot-learning", "generalized-zero-shot-learning", "attributes", "unseen", method],
        base_model=f"timm/{spec.name}" if spec.weights == "pretrained" and spec.tower is None else None,
        datasets=list(fields.datasets) or None,
        **license,
        **more,
    )
    return data.to_yaml() + "\n"


def _part(about: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = about.get(name)
    return found if isinstance(found, Mapping) else {}


def _plain(text: Any) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def _listed(names: list[str]) -> _Markdown:
    shown = ", ".join(map(escaped, names[:LISTED]))
    return _Markdown(shown + (f", and {len(names) - LISTED} more" if len(names) > LISTED else ""))


def _backbone(model: TrainedModel) -> str:
    spec = model.backbone.spec
    told = _part(model.about, "backbone").get("weights")
    weights = told or (spec.weights if spec.weights in ("pretrained", "random") else "from a file")
    local = spec.tower is not None and Path(spec.tower).is_dir()
    return f"{Path(spec.name).name if local else spec.name} ({weights})"


def _measured(about: Mapping[str, Any]) -> dict[str, Any]:
    found = _part(about, "metrics")
    return {k: v for k, v in found.items() if isinstance(v, Mapping) and isinstance(v.get("mean"), int | float)}


def _rows(about: Mapping[str, Any]) -> list[dict[str, str]]:
    """Metric, mean and interval in percent, and meaning."""
    rows, seeds = [], about.get("seeds")
    several = isinstance(seeds, list) and len(seeds) > 1
    for name, value in _measured(about).items():
        low, high = value.get("low"), value.get("high")
        whole = isinstance(low, int | float) and isinstance(high, int | float)
        rows.append(
            {
                "metric": name,
                "mean": f"{100 * value['mean']:.1f}",
                "spread": f"{100 * value.get('std', 0):.1f}" if several else "",
                "interval": f"{100 * low:.1f} to {100 * high:.1f}" if whole else "",
                "says": every_metric()[name].meaning if name in every_metric() else "",
            }
        )
    return rows


def _ranks(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rank, and its accuracies in percent."""
    return [
        (str(rank), ", ".join(f"{name} {100 * v:.1f}" for name, v in metrics.items() if isinstance(v, int | float)))
        for rank, metrics in _part(about, "ranks").items()
        if isinstance(metrics, Mapping)
    ]


def _coarser(about: Mapping[str, Any]) -> list[str]:
    """Sentences about coarser answers on test images, or else on validation images."""
    found = _part(about, "coarser")
    for images in ("test", "validation"):
        with suppress(LookupError, TypeError, AttributeError):
            if found[images]["listed"]["images"]:
                return answers_in_words(found[images], images)
    return []


def _calibration(about: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Images, quantity, value."""
    says = {
        "ece": "expected calibration error (mean gap between confidence and accuracy)",
        "auroc": "seen against unseen, area under the ROC curve",
        "accuracy": "accuracy where every image is answered",
        "coverage": "share of the images that get an answer at the threshold",
        "accuracy_when_known": "accuracy of these",
    }
    return [
        (str(part), says[name], f"{value:.3f}")
        for part, values in _part(about, "calibration").items()
        if isinstance(values, Mapping)
        for name, value in values.items()
        if name in says and isinstance(value, int | float)
    ]
