"""``unseen save``, ``push`` and ``export``: a trained model for other people and other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unseen.cli.common import JsonFlag, RunArgument, app, err, out, print_json
from unseen.ground.progress import quiet_libraries

if TYPE_CHECKING:
    from unseen.recognizer.card import CardFields

Stated = "not stated"
LicenceOption = Annotated[str, typer.Option(help="Of the model, such as apache-2.0 or cc-by-4.0.")]
DataLicenceOption = Annotated[str, typer.Option(help="Of the training images and tables.")]
DataSourceOption = Annotated[str, typer.Option(help="Whose the training data are and where they come from.")]
AuthorOption = Annotated[str, typer.Option(help="Who made the model.")]
ContactOption = Annotated[str, typer.Option(help="Where to ask.")]
DatasetOption = Annotated[list[str] | None, typer.Option("--hub-dataset", help="A data set of the hub (repeatable).")]
BackboneFlag = Annotated[bool, typer.Option("--include-backbone", help="Store a pretrained backbone's weights too.")]
ReferencesFlag = Annotated[
    bool, typer.Option("--include-references", help="Store scores and file names of the training images too.")
]
SeedOption = Annotated[int | None, typer.Option(help="Which seed's model [default: the first].")]


def _fields(
    licence: str, data_licence: str, data_source: str, author: str, contact: str, datasets: list[str] | None
) -> CardFields:
    from unseen.recognizer.card import CardFields

    return CardFields(licence, data_licence, data_source, author, contact, tuple(datasets or ()))


def _warn(licence: str) -> None:
    if licence == Stated:
        err.print("note: no --licence given; the model card says so", highlight=False)


@app.command()
def save(
    run: RunArgument,
    folder: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    seed: SeedOption = None,
    licence: LicenceOption = Stated,
    data_licence: DataLicenceOption = Stated,
    data_source: DataSourceOption = Stated,
    author: AuthorOption = Stated,
    contact: ContactOption = Stated,
    hub_dataset: DatasetOption = None,
    include_backbone: BackboneFlag = False,
    include_references: ReferencesFlag = False,
) -> None:
    """Write a model as a folder for another machine: safetensors, tables, JSON and a model card."""
    from unseen.recognizer import Recognizer

    fields = _fields(licence, data_licence, data_source, author, contact, hub_dataset)
    with quiet_libraries():
        Recognizer.load(run, seed=seed, device="cpu").save(
            folder, include_backbone=include_backbone, include_references=include_references, card=fields
        )
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        size = file.stat().st_size
        out.print(f"{size / 1e6:9.2f} MB  {file.relative_to(folder)}", highlight=False, soft_wrap=True, markup=False)
    _warn(licence)


@app.command()
def push(
    run: RunArgument,
    repo_id: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face hub.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Of a new repository.")] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Model of unseen",
    seed: SeedOption = None,
    licence: LicenceOption = Stated,
    data_licence: DataLicenceOption = Stated,
    data_source: DataSourceOption = Stated,
    author: AuthorOption = Stated,
    contact: ContactOption = Stated,
    hub_dataset: DatasetOption = None,
    include_backbone: BackboneFlag = False,
    include_references: ReferencesFlag = False,
) -> None:
    """Upload a model to the Hugging Face hub (log in before with `hf auth login`)."""
    from unseen.recognizer import Recognizer

    fields = _fields(licence, data_licence, data_source, author, contact, hub_dataset)
    with quiet_libraries():
        where = Recognizer.load(run, seed=seed, device="cpu").push_to_hub(
            repo_id,
            private=private,
            message=message,
            include_backbone=include_backbone,
            include_references=include_references,
            card=fields,
        )
    out.print(where, highlight=False, soft_wrap=True, markup=False)
    out.print(f"unseen predict hf:{repo_id} IMAGES...", highlight=False, soft_wrap=True, markup=False)
    _warn(licence)


@app.command()
def export(
    run: RunArgument,
    onnx: Annotated[Path, typer.Option("--onnx", help="File to write, ending in .onnx.", show_default=False)],
    maps: Annotated[bool, typer.Option("--maps", help="Give also where it looked, for every attribute.")] = False,
    opset: Annotated[int | None, typer.Option(help="ONNX operator set [default: torch's].", min=18)] = None,
    check: Annotated[bool, typer.Option(help="Compare with torch before anything is written.")] = True,
    seed: SeedOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a model as one ONNX graph, with the class table as an input, for programs without torch."""
    from unseen.export import check_path, export_onnx
    from unseen.recognizer import Recognizer

    check_path(onnx)
    with quiet_libraries():
        done = export_onnx(Recognizer.load(run, seed=seed, device="cpu"), onnx, opset=opset, maps=maps, check=check)
    if as_json:
        files = {"model": str(done.model), "facts": str(done.facts), "classes": str(done.classes)}
        print_json({**files, "differences_from_torch": done.differences})
        return
    for file in (done.model, done.facts, done.classes):
        out.print(str(file), highlight=False, soft_wrap=True, markup=False)
    for name, value in done.differences.items():
        out.print(f"{name}: onnxruntime and torch differ by {value:.1e} of the largest", highlight=False)
