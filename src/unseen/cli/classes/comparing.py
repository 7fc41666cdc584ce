"""``unseen classes closest`` and ``separate``: which classes are hard to tell apart, and by what."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unseen.cli.classes.group import ModelArgument, commands, load, say, warn
from unseen.cli.common import JsonFlag, SeedOption, plain_text, print_json, print_table

if TYPE_CHECKING:
    from unseen.recognizer.advice import Divider


@commands.command()
def closest(
    run: ModelArgument,
    name: Annotated[
        str | None, typer.Argument(help="Class to compare with all others [default: the closest pairs of all classes].")
    ] = None,
    top: Annotated[int, typer.Option(help="Number of rows.", min=1)] = 10,
    seed: SeedOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the classes closest to one class by their attributes, or the closest pairs of all classes."""
    from unseen.recognizer.advice import closest, closest_pairs

    recognizer = load(run, seed)
    if name is not None:
        near = closest(recognizer, name, top)
        if as_json:
            print_json({"class": name, "nearest": [asdict(n) for n in near]})
            return
        print_table(
            [
                {
                    "class": n.name,
                    "": "seen" if n.seen else "unseen",
                    "cosine": f"{n.cosine:.3f}",
                    "attributes that differ": str(n.differing),
                    "note": "nearly equal" if n.nearly_equal else "",
                }
                for n in near
            ],
            title=f"nearest to {plain_text(name)}",
        )
        return
    pairs, confused = closest_pairs(recognizer, top), _confusions(run)[:top]
    if as_json:
        print_json({"pairs": [asdict(p) for p in pairs], "confused": confused})
        return
    print_table(
        [
            {
                "class": p.first,
                "and": p.second,
                "cosine": f"{p.cosine:.3f}",
                "attributes that differ": str(p.differing),
            }
            for p in pairs
        ],
        title="nearest by attributes",
    )
    if confused:
        print_table(
            [
                {"unseen class": c["class"], "mistaken for": c["taken_for"], "share": f"{100 * c['share']:.0f}%"}
                for c in confused
            ],
            title="most often confused on the test images (classes of the training)",
        )


def _confusions(run: Path) -> list[dict[str, Any]]:
    """Measured confusions of a run; empty for a saved model."""
    from unseen.training.folder import Run

    if not (run / "config.json").is_file():
        return []
    opened = Run(run)
    found: list[dict[str, Any]] = opened.results["protocols"][opened.protocol].get("confusions", [])
    return found


@commands.command()
def separate(
    run: ModelArgument,
    first: Annotated[str, typer.Argument(help="A class.", show_default=False)],
    second: Annotated[str, typer.Argument(help="Class that it is confused with.", show_default=False)],
    top: Annotated[int, typer.Option(help="Number of attributes.", min=1)] = 5,
    seed: SeedOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the attributes that separate two classes.

    Also suggests attributes that the model recognizes well but that have equal values for both classes.
    """
    from unseen.classes.naming import label
    from unseen.recognizer.advice import separate

    recognizer = load(run, seed)
    found = separate(recognizer, first, second, top)
    if as_json:
        print_json(asdict(found))
        return

    def rows(dividers: tuple[Divider, ...], leads: bool) -> list[dict[str, str]]:
        return [
            {
                "attribute": label(d.attribute),
                first: f"{d.first_value:g}",
                second: f"{d.second_value:g}",
                **({"lead": "?" if d.lead is None else f"{d.lead:+.3f}"} if leads else {}),
                "AUROC": "?" if d.auroc is None else f"{100 * d.auroc:.0f}%",
            }
            for d in dividers
        ]

    columns = ["attribute", first, second, "lead", "AUROC"]
    say(f"{first} and {second}: cosine {found.cosine:.3f}")
    if found.today:
        print_table(rows(found.today, True), {c: c for c in columns}, title="attributes that separate them")
    else:
        say("their attribute values are equal")
    if found.refine:
        shown = {c: c for c in columns if c != "lead"}
        print_table(rows(found.refine, False), shown, title="described alike, recognized well: refine these values")
        best = found.refine[0]
        say(f"suggestion: check whether {first} and {second} differ in “{label(best.attribute)}”.")
    if recognizer.references is None:
        warn(["no AUROC: the run has no attribute scores of its training images"])
