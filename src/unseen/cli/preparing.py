"""``unseen prepare`` and ``import``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from unseen.cli import completing
from unseen.cli.common import JsonFlag, app, err, out, output_folder, plain_text, print_json, with_bars
from unseen.ground.words import counted, pasted

if TYPE_CHECKING:
    from unseen.data.layouts.importing import Imported
    from unseen.errors import DataError
    from unseen.releases import Outcome
    from unseen.releases.benchmark import Benchmark

StoreDtypeOption = Annotated[str, typer.Option(help="Data type of stored features: float16, bfloat16 or float32.")]


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="cub, sun, awa2, awa1, apy or flo.", show_default=False)],
    root: Annotated[Path, typer.Option(help="Folder with the unpacked downloads.", show_default=False)],
    output: Annotated[Path | None, output_folder("Dataset folder to write [default: datasets/DATASET].")] = None,
    semantics: Annotated[
        str | None,
        typer.Option(help="Class semantics: attributes, binary (AWA) or sentences (CUB, FLO) [default: the first]."),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Also compute checksums.")] = False,
    features_only: Annotated[
        bool, typer.Option("--features-only", help="Use the release's pooled features; no images needed.")
    ] = False,
    store_dtype: StoreDtypeOption = "float16",
    check: Annotated[bool, typer.Option("--check", help="Check the files only; write nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Turn the official files of a benchmark into a dataset folder.

    Checks the files and lists those that are missing, with their download pages. Exits with status 2 on a problem.

    Example: `unseen prepare cub --root downloads`
    """
    from unseen.releases import find_benchmark
    from unseen.releases import prepare as work

    benchmark = find_benchmark(dataset)
    folder = None if check else output or Path("datasets") / benchmark.name
    outcome = with_bars(
        lambda bars: work(
            benchmark,
            root,
            folder,
            semantics=semantics,
            verify=verify,
            features_only=features_only,
            store_dtype=store_dtype,
            progress=bars,
        )
    )
    if as_json:
        print_json(outcome.to_json())
    else:
        _show(outcome, root)
    if outcome.lacking or outcome.problems:
        raise typer.Exit(2)


@app.command(name="import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="Feature file (.npz, .npy, .safetensors, .parquet, .hdf5, res101.mat), annotation or observation "
            "export, trait table, or Google Sheets link. See `unseen list layouts`.",
            show_default=False,
        ),
    ],
    dataset: Annotated[
        Path, typer.Argument(help="Dataset folder; for features, a class table is enough.", show_default=False)
    ],
    layout: Annotated[
        str | None,
        typer.Option(
            help="Layout of an export (see `unseen list layouts`) [default: detected].",
            autocompletion=completing.layouts,
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Attribute, term or column of an export that holds the class name.")
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Margin added on each side of a box, as a fraction of its size.", min=0)
    ] = 0.1,
    images: Annotated[
        Path | None, typer.Option(help="Image folder of an export [default: the export's folder].")
    ] = None,
    most: Annotated[
        int, typer.Option(help="Largest number of images per class from an export; 0 means all.", min=0)
    ] = 0,
    only: Annotated[
        list[str] | None, typer.Option(help="Classes of an export to import: A,B or @FILE (repeatable).")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of features, for --backbone features:NAME [default: the file name].")
    ] = None,
    made_with: Annotated[
        str, typer.Option(help="Network, weights and image size that made the features; shown with every result.")
    ] = "unknown origin",
    store_dtype: StoreDtypeOption = "float16",
    word_vectors: Annotated[
        bool, typer.Option("--word-vectors", help="Also store `w2v_att` as the dataset's attribute_vectors.npy.")
    ] = False,
) -> None:
    """Import annotations, observations, trait tables or precomputed features; repeat the command to resume.

    Annotation exports (COCO, Label Studio, CVAT, Roboflow, VIA) become crops of their boxes. Images of observation
    exports (Darwin Core, GBIF, iNaturalist) are downloaded. Trait tables become `classes.csv`, with suggestions in
    `attributes.csv`.

    Rows of features must match the dataset's images: labels, names and splits are compared first. A folder without
    images gets a table of images from the file's labels. Then train with `unseen train DATASET --backbone
    features:NAME`. The model predicts from new features (in Python), not from new images.

    Examples: `unseen import project.json datasets/birds --margin 0.15`, `unseen import AVONET.xlsx datasets/birds`,
    `unseen import feature_map_ResNet_101_CUB.hdf5 datasets/cub --name dazle`
    """
    from unseen.data.layouts.sheets import is_sheet

    if layout is None and not is_sheet(source) and Path(source).suffix.lower() in FEATURES:
        _features(Path(source), dataset, name, made_with, store_dtype, word_vectors)
        return
    from unseen.data.layouts.importing import Options, import_export
    from unseen.recognizer.stream import names_from

    wanted = names_from(only, ()) if only else None
    options = Options(label, margin, images, most, wanted)
    if is_sheet(source):
        from unseen.data.layouts.sheets import csv_address, fetch_table

        with TemporaryDirectory() as folder:
            table = fetch_table(csv_address(source), Path(folder) / "sheet.csv")
            found = import_export(table, dataset, options, layout=layout)
    else:
        if layout is None and Path(source).is_dir():
            _refer_to_prepare(Path(source))
        left = LeftOutImages()
        found = with_bars(
            lambda bars: import_export(Path(source), dataset, options, layout=layout, progress=bars, left_out=left)
        )
    _say_imported(found, dataset)


def _refer_to_prepare(source: Path) -> None:
    """Raise :class:`UnseenError` if a folder holds the official files of a benchmark."""
    from unseen.errors import UnseenError
    from unseen.releases import benchmark_in

    for root in (source, source.absolute().parent):
        if (found := benchmark_in(root)) is not None and (root == source or _is_of(found, source)):
            problem = f"these are files of a benchmark, {found.title}"
            raise UnseenError(problem, where=source, hint=f"unseen prepare {found.name} --root {root}")


def _is_of(benchmark: Benchmark, source: Path) -> bool:
    return any(need.paths[0].split("/")[0] == source.absolute().name for need in benchmark.needs)


FEATURES = (".npz", ".npy", ".safetensors", ".parquet", ".hdf5", ".h5", ".mat")
NAMED = 10
"""Number of left out images that are named one by one."""


class LeftOutImages:
    """Names the first images that are left out."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: DataError) -> None:
        """Report an image."""
        self.count += 1
        if self.count <= NAMED:
            err.print(f"[yellow]ignored:[/] {plain_text(str(error))}", highlight=False, soft_wrap=True)


def _say_imported(found: Imported, dataset: Path) -> None:
    from unseen.classes.spreadsheets.tables import find_table

    def say(text: str) -> None:
        out.print(plain_text(text), highlight=False, soft_wrap=True)

    say(f"read as {found.layout.name}: {found.layout.title}")
    if found.images:
        total = sum(found.images.values())
        say(f"{counted(total, 'image')} of {counted(len(found.images), 'class')} in {dataset / 'images'}")
    for note in found.notes:
        err.print(f"note: {plain_text(note)}", highlight=False, soft_wrap=True)
    for path in found.written:
        say(f"wrote {path}{'/' if path.is_dir() else ''}")
    if found.layout.table is None and find_table(dataset, "classes") is None:
        say(f"next: create a class table with `unseen init {pasted(dataset)}`, or import one")
    else:
        say(f"next: unseen check {pasted(dataset)}")


def _features(features: Path, dataset: Path, name: str | None, made_with: str, dtype: str, word_vectors: bool) -> None:
    from unseen.data.importing import dataset_of, import_features, import_vectors, undone_if_refused

    called = name or features.stem
    with undone_if_refused(dataset):
        found = dataset_of(dataset, features)
        store = with_bars(
            lambda bars: import_features(
                features,
                found,
                dataset,
                called,
                made_with=made_with,
                dtype=dtype,
                tick=lambda done, total: bars("importing features", done, total),
            )
        )
    if word_vectors:
        import_vectors(features, found, dataset)
    height, width = store.grid()
    said = f"{counted(len(store), 'image')}, {height}x{width} regions of {store.channels()} channels"
    said += f", {store.nbytes / 1e9:.2f} GB"
    out.print(plain_text(f"{said} in {store.folder}"), highlight=False, soft_wrap=True)
    out.print(
        plain_text(f"next: unseen train {pasted(dataset)} --backbone features:{called}"),
        highlight=False,
        soft_wrap=True,
    )


def _show(outcome: Outcome, root: Path) -> None:
    """The files, the results of the checks, and the next step."""

    def say(text: str, style: str | None = None) -> None:
        out.print(plain_text(text), style=style, highlight=False, soft_wrap=True)

    benchmark = outcome.benchmark
    say(f"{benchmark.title} in {root}", "bold")
    say(f"{benchmark.cite}; see its page for the terms of use", "dim")
    width = max(len(s.need.paths[0]) for s in outcome.states)
    for state in outcome.states:
        mark = state.state if state.state == "found" or state.need.required else f"{state.state} (optional)"
        place = state.need.paths[0] if state.path is None else _below(state.path, root)
        say(f"  {mark:<18} {place:<{width}}  {state.need.what}" + (f"; {state.note}" if state.note else ""))
    wanted = {s.need.download.file: s for s in outcome.states if s.state != "found"}
    if wanted:
        say("")
        say("Missing files:", "bold")
    for file, state in wanted.items():
        download = state.need.download
        needed = any(s.need.required for s in outcome.states if s.state != "found" and s.need.download.file == file)
        say(f"  {file}{'' if needed else ' (optional)'}: {state.next}")
        checksum = download.checksum or "no checksum known"
        say(f"    {download.url}", "dim")
        say(f"    {download.size_text}; {checksum}" + (f" ({download.source})" if download.source else ""), "dim")
    if outcome.held:
        say("")
        say("Checked:", "bold")
        for held in outcome.held:
            say(f"  {held}")
    for note in outcome.notes:
        err.print(f"[yellow]note:[/] {plain_text(note)}", highlight=False, soft_wrap=True)
    for problem in outcome.problems:
        err.print(f"[bold red]error:[/] {plain_text(problem)}", highlight=False, soft_wrap=True)
    say("")
    if outcome.dataset is not None:
        say(f"dataset:     {outcome.output}")
        say(f"fingerprint: {outcome.dataset.fingerprint}")
        pooled = outcome.output is not None and (outcome.output / "features" / "res101").is_dir()
        features = " --backbone features:res101" if pooled and not benchmark.images else ""
        say(f"next:        unseen train {pasted(str(outcome.output))}{features}")
    elif outcome.lacking:
        say(f"not ready: {counted(len(outcome.lacking), 'required file')} missing or damaged", "bold")
    elif outcome.problems:
        say(f"not ready: {counted(len(outcome.problems), 'problem')} to fix", "bold")
    else:
        say("all checks passed")


def _below(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)
