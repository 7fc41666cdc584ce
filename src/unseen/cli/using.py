"""``unseen predict``: a trained run on pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unseen.cli.common import (
    DeviceOption,
    JsonFlag,
    RunArgument,
    app,
    err,
    plain_text,
    print_json,
    print_table,
)
from unseen.errors import UnseenError
from unseen.progress import quiet_libraries

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def find_pictures(paths: list[Path]) -> list[Path]:
    """Files as they are, folders by the pictures below them."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
            if not inside:
                raise UnseenError("no pictures in this folder", where=path, mend="give pictures, or their folder")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UnseenError("no such file", where=path, mend="mend the path")
    return found


@app.command()
def predict(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.", show_default=False)],
    top: Annotated[int, typer.Option(help="Classes a picture.", min=1)] = 3,
    among: Annotated[str, typer.Option(help="Choose among all, seen or unseen classes.")] = "all",
    seed: Annotated[int | None, typer.Option(help="Which seed's model [default: the first].")] = None,
    device: DeviceOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Name what pictures show, with confidence and the attributes that speak for it."""
    from unseen.explain.figures import label
    from unseen.recognizer import Recognizer

    files = find_pictures(images)
    with quiet_libraries():
        recognizer = Recognizer.load(run, seed=seed, device=device)
        broken: list[UnseenError] = []
        predictions = list(recognizer.predict(files, top=top, among=among, broken=broken.append))
    for error in broken:
        err.print(f"[bold red]error:[/] {plain_text(str(error))}", highlight=False, soft_wrap=True)
    if as_json:
        print_json([p.as_dict() for p in predictions])
        raise typer.Exit(2 if broken else 0)
    print_table(
        [
            {
                "picture": "/".join(Path(p.picture).parts[-2:]) if rank == 0 else "",
                "class": f"{c.name}{'' if c.seen else ' (unseen)'}",
                "confidence": f"{100 * c.confidence:.0f}%",
                "the first because of": label(p.attributes[rank][0]) if rank < len(p.attributes) else "",
            }
            for p in predictions
            for rank, c in enumerate(p.candidates)
        ]
    )
    if recognizer.temperature is None:
        err.print("note: confidence is not calibrated (no validation classes were used)", highlight=False)
    raise typer.Exit(2 if broken else 0)
