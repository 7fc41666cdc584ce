"""The usual figures of the field's papers, from any finished run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unseen.errors import DataError, UnseenError
from unseen.explain.answers import Answers, answers_of
from unseen.explain.attention import Parts, attention_sheet
from unseen.explain.attribute_scores import attribute_quality, image_sheet, quality_sheet, read_in_holdouts
from unseen.explain.courses import holdouts_sheet, training_sheet
from unseen.explain.sheet import Sheet, check_formats, class_label
from unseen.explain.tsne import tsne_maps, tsne_sheet
from unseen.ground.progress import Progress, silent
from unseen.training.folder import Run

KINDS = ("tsne", "attention", "attributes", "training", "holdouts")


@dataclass
class Gallery:
    """The drawn figures.

    Args:
        figures: figure name to its files: images, then CSV and JSON.
        captions: figure name to its caption.
        notes: one line for each kind of figure that could not be drawn.
    """

    figures: dict[str, list[Path]] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def run_figures(
    run: Run,
    folder: Path | None = None,
    *,
    kinds: Sequence[str] | None = None,
    images: Sequence[Path] = (),
    formats: Sequence[str] = ("png", "svg"),
    seed: int | None = None,
    examples: int = 2,
    classes: int = 20,
    limit: int = 1500,
    perplexity: float | None = None,
    draw_seed: int = 0,
    device: str = "auto",
    cache: Path | str | None = None,
    workers: int = 0,
    progress: Progress = silent,
) -> Gallery:
    """Draw figures of a run, each with its numbers beside it.

    Args:
        run: a finished run.
        folder: folder for the files; by default ``figures`` in the run's folder.
        kinds: kinds from :data:`KINDS`; by default all that apply: ``training`` for a method with epochs, ``holdouts``
            for a run with class hold-outs, and the others.
        images: images for ``attention`` and ``attributes``; by default :meth:`Answers.examples`.
        formats: formats from :data:`unseen.explain.sheet.FORMATS`.
        seed: seed of the model; by default the first.
        examples: number of default images predicted correctly, and of images predicted wrongly.
        classes, limit, perplexity: for the t-SNE, see :func:`unseen.explain.tsne.tsne_maps`.
        draw_seed: seed of random draws and of t-SNE.
        device, cache, workers, progress: see :func:`unseen.training.run.fit`.

    Raises:
        UnseenError: an invalid argument, missing images, or nothing that could be drawn.
    """
    by_default, kinds = kinds is None, KINDS if kinds is None else kinds
    for kind in kinds:
        if kind not in KINDS:
            raise UnseenError(f'no figure "{kind}"', hint=f"use one of {', '.join(KINDS)}")
    check_formats(formats)
    answers = answers_of(run, seed=seed, device=device, cache=cache, workers=workers, progress=progress)
    folder, made = folder or run.folder / "figures", Gallery()

    def keep(sheet: Sheet) -> None:
        made.figures[sheet.name] = sheet.save(folder, formats)
        made.captions[sheet.name] = sheet.caption

    tasks: list[tuple[str, Callable[[], Sheet]]] = []
    if "tsne" in kinds:
        maps = {"classes": classes, "images": limit, "perplexity": perplexity, "seed": draw_seed}
        tasks.append(("tsne", lambda: tsne_sheet(answers, tsne_maps(answers, **maps), draw_seed)))  # type: ignore[arg-type]
    if "attributes" in kinds:
        read = read_in_holdouts(run.results["protocols"][run.protocol])
        tasks.append(("attributes", lambda: quality_sheet(answers, attribute_quality(answers, read))))
    own: dict[str, Callable[[], Sheet]] = {
        "training": lambda: training_sheet(run, answers.seed, answers.origin),
        "holdouts": lambda: holdouts_sheet(run, answers.origin),
    }
    tasks += [(kind, task) for kind, task in own.items() if kind in kinds]
    for done, (kind, task) in enumerate(tasks):
        progress("figures over all test images", done, len(tasks))
        try:
            keep(task())
        except DataError as error:  # too few images for one kind, say
            if not (by_default and kind in own):
                made.notes.append(f"{kind}: {error.problem}")
        progress("figures over all test images", done + 1, len(tasks))
    if {"attention", "attributes"} & set(kinds):
        chosen = list(images) or [answers.dataset.paths()[i] for i in answers.examples(examples, draw_seed)]
        if not chosen:
            made.notes.append("figures of single images: there are no test images; pass --image FILE")
        for done, path in enumerate(chosen):
            for sheet in _of_image(answers, path, done + 1, kinds):
                if isinstance(sheet, str):
                    made.notes += [sheet] if sheet not in made.notes else []
                else:
                    keep(sheet)
            progress("figures of images", done + 1, len(chosen))
    if not made.figures:
        raise UnseenError("; ".join(made.notes) or "no figures to draw", where=run.folder, hint="choose another --kind")
    return made


def _of_image(answers: Answers, path: Path, number: int, kinds: Sequence[str]) -> list[Sheet | str]:
    """Sheets of one image, and a note instead of one if the method does not support it."""
    recognizer = answers.recognizer
    table, index = answers.dataset.table, answers.find(path)
    truth = None if index is None else table.names[answers.dataset.labels[index]]
    explanation = recognizer.explain(path)
    named = explanation.target
    if truth is not None and truth != named.name:
        explanation = recognizer.explain(path, target=named.name, rival=truth)
    title = f"{path.parent.name}/{path.name}: predicted {class_label(named.name)}"
    title += f"{'' if named.seen else ' (unseen)'}, {100 * named.confidence:.0f}%"
    if truth is not None:
        kind = "seen" if table.seen[table.index(truth)] else "unseen"
        title += " — correct" if truth == named.name else f" — wrong, it is {class_label(truth)} ({kind})"
    stem = re.sub(r"[^\w.-]+", "_", f"{number}-{path.parent.name}-{path.stem}")
    made: list[Sheet | str] = []
    if "attention" in kinds:
        if explanation.attention:
            parts = Parts() if index is None else Parts.of(answers.dataset, answers.dataset.files[index])
            made.append(
                attention_sheet(
                    explanation, recognizer.backbone.transform, parts, f"attention-{stem}", title, answers.origin
                )
            )
        else:
            made.append(f"attention: {recognizer.method.name} has no attention maps")
    if "attributes" in kinds and not explanation.strongest(1):
        made.append(f"attributes: {recognizer.method.name} classifies {path.name} without attributes")
    elif "attributes" in kinds:
        made.append(image_sheet(explanation, f"attributes-{stem}", title, answers.origin))
    return made
