"""``unseen explain``: why a trained run takes a picture for what it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unseen.cli.common import (
    DeviceOption,
    JsonFlag,
    RunArgument,
    app,
    out,
    print_json,
    print_table,
)
from unseen.data.finding import find_pictures
from unseen.errors import UnseenError
from unseen.progress import quiet_libraries

if TYPE_CHECKING:
    from unseen.recognizer import PartMaps


def _signed(value: float) -> str:
    return "0" if abs(value) < 5e-4 else f"{value:+.3f}"


def _show_parts(found: PartMaps, path: Path, as_json: bool) -> None:
    from unseen.explain.parts import parts_figure

    parts_figure(found, path)
    if as_json:
        shares = {level: maps.round(5).tolist() for level, maps in found.maps.items()}
        print_json({"parts": shares, "crop": list(found.crop), "figure": str(path)})
        return
    out.print(f"figure:  {path}", highlight=False, soft_wrap=True)


@app.command()
def explain(
    run: RunArgument,
    image: Annotated[Path, typer.Argument(help="A picture.", show_default=False)],
    target: Annotated[str | None, typer.Option("--class", help="Class to explain [default: the best].")] = None,
    against: Annotated[str | None, typer.Option(help="Class to compare with [default: the next best].")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG to write [default: IMAGE-why.png, in this folder].")
    ] = None,
    top: Annotated[int, typer.Option(help="Attributes shown.", min=1)] = 6,
    among: Annotated[str, typer.Option(help="Choose among all, seen or unseen classes.")] = "all",
    parts: Annotated[
        bool, typer.Option("--parts", help="Show instead what each learned part attends to (mgmrn, grouping=parts).")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Which seed's model [default: the first].")] = None,
    device: DeviceOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Show why: attribute evidence, and where the model looked, as heat maps over the picture."""
    from unseen.explain.figures import account, explanation_figure, said
    from unseen.recognizer import Recognizer

    if image.is_dir():
        raise UnseenError("a folder", where=image, mend="explain one picture at a time")
    files = find_pictures([image])
    path = output or Path(f"{image.stem}-{'parts' if parts else 'why'}.png")
    with quiet_libraries():
        recognizer = Recognizer.load(run, seed=seed, device=device)
        if path.suffix.lower() != ".png":
            raise UnseenError("not a .png", where=path, mend="give -o a file name that ends in .png")
        if parts:
            _show_parts(recognizer.parts(files[0]), path, as_json)
            return
        found = recognizer.explain(files[0], target=target, rival=against, among=among)
    explanation_figure(found, path, top)
    if as_json:
        print_json({**found.as_dict(), "figure": str(path)})
        return
    shown, rest = account(found, top)
    print_table(
        [
            {
                "attribute": name,
                "looks at": where,
                f"for {found.target.name}": _signed(evidence),
                f"against {found.rival.name}": _signed(against),
            }
            for name, where, evidence, against in (
                *(
                    (said(r), r.part or r.group.removeprefix("has_").replace("_", " "), r.evidence, r.against)
                    for r in shown
                ),
                *((name, "", evidence, against) for name, evidence, against in rest),
            )
        ],
        title=f"{found.target.name}: {100 * found.target.confidence:.0f}%"
        f"   {found.rival.name}: {100 * found.rival.confidence:.0f}%",
    )
    out.print(f"picture: {files[0]}\nfigure:  {path}", highlight=False, soft_wrap=True)
