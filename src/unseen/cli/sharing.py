"""``unseen save``, ``push`` and ``export``: share a trained model with other people and programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from unseen.cli.common import JsonFlag, RunArgument, SeedOption, a_folder, app, err, out, print_json
from unseen.cli.options import with_options
from unseen.ground.progress import quiet_libraries

Stated = "not stated"


@dataclass(frozen=True, kw_only=True)
class ContentOptions:
    """Options of the content of a shared model and of its card, as given."""

    seed: SeedOption = None
    license: Annotated[str, typer.Option(help="License of the model, such as apache-2.0 or cc-by-4.0.")] = Stated
    data_license: Annotated[str, typer.Option(help="License of the training images and tables.")] = Stated
    data_source: Annotated[str, typer.Option(help="Source and owner of the training data.")] = Stated
    author: Annotated[str, typer.Option(help="Author of the model.")] = Stated
    contact: Annotated[str, typer.Option(help="Contact for questions.")] = Stated
    hub_dataset: Annotated[
        list[str] | None,
        typer.Option("--hub-dataset", help="Hub dataset that the model was trained on (repeatable)."),
    ] = None
    include_backbone: Annotated[
        bool, typer.Option("--include-backbone", help="Also store the weights of a pretrained backbone.")
    ] = False
    include_references: Annotated[
        bool, typer.Option("--include-references", help="Also store the training images' scores and file names.")
    ] = False

    def arguments(self) -> dict[str, Any]:
        """Arguments of :meth:`unseen.recognizer.Recognizer.save` and ``push_to_hub``."""
        from unseen.recognizer.card import CardFields

        stated = (self.license, self.data_license, self.data_source, self.author, self.contact)
        return {
            "include_backbone": self.include_backbone,
            "include_references": self.include_references,
            "card": CardFields(*stated, tuple(self.hub_dataset or ())),
        }


with_content_options = with_options(ContentOptions, "content")


def _warn(license: str) -> None:
    if license == Stated:
        err.print("note: the model card states no license; pass --license", highlight=False)


@app.command()
@with_content_options
def save(
    run: RunArgument,
    folder: Annotated[Path, typer.Argument(help="Folder to write.", callback=a_folder, show_default=False)],
    *,
    content: ContentOptions,
) -> None:
    """Save a model to a self-contained folder: safetensors, tables, JSON and a model card."""
    from unseen.recognizer import Recognizer

    with quiet_libraries():
        Recognizer.load(run, seed=content.seed, device="cpu").save(folder, **content.arguments())
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        size = file.stat().st_size
        out.print(f"{size / 1e6:9.2f} MB  {file.relative_to(folder)}", highlight=False, soft_wrap=True, markup=False)
    _warn(content.license)


@app.command()
@with_content_options
def push(
    run: RunArgument,
    repo_id: Annotated[str, typer.Argument(help="Hub repository, OWNER/NAME.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    message: Annotated[str, typer.Option(help="Commit message.")] = "Model of unseen",
    *,
    content: ContentOptions,
) -> None:
    """Upload a model to the Hugging Face hub (log in first with `hf auth login`)."""
    from unseen.recognizer import Recognizer

    with quiet_libraries():
        where = Recognizer.load(run, seed=content.seed, device="cpu").push_to_hub(
            repo_id, private=private, message=message, **content.arguments()
        )
    out.print(where, highlight=False, soft_wrap=True, markup=False)
    out.print(f"unseen predict hf:{repo_id} IMAGES...", highlight=False, soft_wrap=True, markup=False)
    _warn(content.license)


@app.command()
def export(
    run: RunArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help=".onnx file to write.", show_default=False)],
    maps: Annotated[bool, typer.Option("--maps", help="Add an output with a heat map for every attribute.")] = False,
    opset: Annotated[int | None, typer.Option(help="ONNX opset version [default: torch's].", min=18)] = None,
    check: Annotated[bool, typer.Option(help="Compare the outputs with torch before writing.")] = True,
    seed: SeedOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Export a model to ONNX, with the class table as an input."""
    from unseen.export import check_path, export_onnx
    from unseen.recognizer import Recognizer

    check_path(output)
    with quiet_libraries():
        done = export_onnx(Recognizer.load(run, seed=seed, device="cpu"), output, opset=opset, maps=maps, check=check)
    if as_json:
        files = {"model": str(done.model), "facts": str(done.facts), "classes": str(done.classes)}
        print_json({**files, "differences_from_torch": done.differences})
        return
    for file in (done.model, done.facts, done.classes):
        out.print(str(file), highlight=False, soft_wrap=True, markup=False)
    for name, value in done.differences.items():
        out.print(f"{name}: largest relative difference to torch {value:.1e}", highlight=False)
