"""``unseen figures``: the figures of papers, from any run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unseen.cli.common import (
    CacheOption,
    DeviceOption,
    JsonFlag,
    RunArgument,
    SeedOption,
    app,
    err,
    out,
    output_folder,
    plain_text,
    print_json,
    with_bars,
)


@app.command()
def figures(
    run: RunArgument,
    kind: Annotated[
        str | None,
        typer.Option(help="Figures: tsne, attention, attributes, training, holdouts [default: all that apply]."),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Image to draw (repeatable) [default: correct and wrong test images of unseen classes]."),
    ] = None,
    output: Annotated[Path | None, output_folder("Output folder [default: RUN/figures].")] = None,
    form: Annotated[str, typer.Option("--format", help="File formats: png, svg, pdf.")] = "png,svg",
    examples: Annotated[
        int, typer.Option(help="Default images: number of correct ones, and of wrong ones.", min=1)
    ] = 2,
    classes: Annotated[int, typer.Option(help="Largest number of classes in the t-SNE plot.", min=2)] = 20,
    limit: Annotated[int, typer.Option(help="Largest number of images in the t-SNE plot.", min=5)] = 1500,
    perplexity: Annotated[
        float | None, typer.Option(help="Perplexity of the t-SNE [default: 30, less for few images].")
    ] = None,
    draw_seed: Annotated[int, typer.Option(help="Seed of the image sample and of t-SNE.", min=0)] = 0,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(help="Processes that read images.")] = 0,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw a run's t-SNE, attention, attribute scores, training and class hold-outs, with numbers as CSV and JSON."""
    from unseen.data.finding import FoundImages
    from unseen.explain.gallery import run_figures
    from unseen.training.folder import Run

    opened, found = Run(run), FoundImages(image or [])
    files = list(found)
    made = with_bars(
        lambda bars: run_figures(
            opened,
            output,
            kinds=None if kind is None else _words(kind),
            images=files,
            formats=_words(form),
            seed=seed,
            examples=examples,
            classes=classes,
            limit=limit,
            perplexity=perplexity,
            draw_seed=draw_seed,
            device=device,
            cache=cache,
            workers=workers,
            progress=bars,
        )
    )
    for note in (*made.notes, *found.left_out.lines()):
        err.print(f"[yellow]note:[/] {plain_text(note)}", highlight=False, soft_wrap=True)
    if as_json:
        print_json(
            {
                "figures": [
                    {"name": name, "files": [str(p) for p in paths], "caption": made.captions[name]}
                    for name, paths in made.figures.items()
                ],
                "notes": [*made.notes, *found.left_out.lines()],
            }
        )
        return
    for paths in made.figures.values():
        out.print(str(paths[0]), highlight=False, soft_wrap=True, markup=False)
    out.print("Each figure's numbers are in the .csv and .json file of the same name.", style="dim", highlight=False)


def _words(text: str) -> list[str]:
    """Distinct comma-separated words, in order."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
