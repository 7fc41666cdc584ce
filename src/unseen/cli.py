"""The ``unseen`` command: parse, call the library, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from unseen import __version__
from unseen.errors import UnseenError

if TYPE_CHECKING:
    from unseen.training.run import Run

app = typer.Typer(
    name="unseen",
    help="Recognise classes nobody has photographed, from a table of their attributes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)
out = Console()
err = Console(stderr=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="Where drawn pictures and region stores are kept [default: $UNSEEN_CACHE or ~/.cache/unseen]."),
]
RunArgument = Annotated[Path, typer.Argument(help="A folder that `unseen train` wrote.", show_default=False)]


def main() -> None:
    """Run the command; a user's mistake is one line on standard error and status 2."""
    try:
        status = app(standalone_mode=False)
        if isinstance(status, int) and status:
            sys.exit(status)
    except UnseenError as error:
        err.print(f"[bold red]error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        err.print(
            f"[bold red]error:[/] {_plain(where + (error.strerror or str(error)))}", highlight=False, soft_wrap=True
        )
        sys.exit(2)
    except Exception as error:
        # typer's own usage errors know how to show themselves
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        raise


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep library chatter out of the terminal."""
    import logging
    import warnings

    for library in ("lightning_fabric", "huggingface_hub", "timm"):
        logging.getLogger(library).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning_fabric")
        yield


EXAMPLES = {"--set": "lambda_cal=0.1", "--recipe": "lr=1e-3", "--backbone-option": "pad_type=same"}


def _pairs(values: list[str], option: str) -> dict[str, str]:
    pairs = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UnseenError(
                f'"{text}" is not NAME=VALUE', where=option, mend=f"{option} {EXAMPLES[option]}, for instance"
            )
        pairs[name.strip()] = value.strip()
    return pairs


def _typed(text: str) -> Any:
    """A backbone option as what it looks like: a number, true/false, a list as in JSON, or text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _triple(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(v) for v in text.split(","))
    except ValueError:
        values = ()
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise UnseenError(f'"{text}" is not one or three numbers', where=option, mend="0.5 or 0.485,0.456,0.406")
    return values


def _seeds(text: str) -> tuple[int, ...]:
    """``5`` is seeds 0 to 4; ``214,`` or ``1,7`` are those."""
    try:
        if "," in text:
            return tuple(int(v) for v in text.split(",") if v.strip())
        if int(text) > 0:
            return tuple(range(int(text)))
    except ValueError:
        pass
    raise UnseenError(f'"{text}" names no seeds', where="--seeds", mend="a number of seeds, or a list such as 0,7")


def _protocols(text: str) -> tuple[str, ...]:
    known = {"honest": ("honest",), "paper": ("paper",), "both": ("honest", "paper")}
    if text not in known:
        raise UnseenError(f'unknown protocol "{text}"', where="--protocol", mend="honest, paper or both")
    return known[text]


def _table(rows: list[dict[str, str]], columns: dict[str, str] | None = None, title: str | None = None) -> None:
    """Print rows; columns that say the same in every row move above the table, so that it stays narrow."""
    from unseen.report.tables import shared_columns

    if not rows:
        return
    names = columns or {name: name for name in rows[0]}
    shared = [n for n in shared_columns(rows) if n in names]
    if shared:
        out.print("   ".join(f"{names[n]}: {rows[0][n]}" for n in shared), highlight=False, soft_wrap=True)
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in names:
        if name not in shared:
            table.add_column(names[name], overflow="fold", justify="left")
    for row in rows:
        table.add_row(*(_plain(row[n]) for n in names if n not in shared))
    out.print(table)


def _backbone(
    dataset: str,
    name: str | None,
    weights: str | None,
    size: int | None,
    options: list[str],
    mean: str | None,
    std: str | None,
    crop: float,
    stages: str,
) -> Any:
    from dataclasses import replace

    from unseen.backbones import BackboneSpec
    from unseen.training.run import default_backbone

    extra = {k: _typed(v) for k, v in _pairs(options, "--backbone-option").items()}
    chosen = tuple(s if s == "final" else _typed(s) for s in stages.split(","))
    normal: dict[str, Any] = {"mean": _triple(mean, "--mean"), "std": _triple(std, "--std")}
    if name is None or name == "fieldguide":
        if weights is not None or extra:
            raise UnseenError("backbone weights or options without --backbone", mend="name the timm model too")
        default = default_backbone(name or dataset)
        changes = {k: v for k, v in {**normal, "image_size": size}.items() if v is not None}
        return replace(default, stages=chosen, crop=crop, **changes)
    found = "pretrained" if weights is None else weights
    if found not in ("pretrained", "random"):
        found = str(Path(found).expanduser().absolute())
    return BackboneSpec(name=name, stages=chosen, image_size=size, weights=found, options=extra, crop=crop, **normal)


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="Method name; see `unseen list`.", show_default=False)],
    dataset: Annotated[
        str, typer.Argument(help="`fieldguide`, or a folder with images.csv and classes.csv.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder [default: runs/METHOD-DATASET].")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="honest (choose on validation classes), paper (choose on the test set), or both.")
    ] = "honest",
    seeds: Annotated[str, typer.Option(help="How many seeds, or a list such as 0,7.")] = "1",
    preset: Annotated[str | None, typer.Option(help="Released settings to start from, e.g. cub, sun, awa2.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: lambda_cal=0.2 (repeatable).")
    ] = None,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Change the training recipe: epochs=10, lr=1e-3 (repeatable).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Short for --recipe epochs=N.")] = None,
    vectors: Annotated[str, typer.Option(help="Attribute vectors: auto, given, words or random.")] = "auto",
    backbone: Annotated[
        str | None,
        typer.Option(help="timm model, or fieldguide (the one made for its birds) [default: resnet101.tv_in1k]."),
    ] = None,
    backbone_weights: Annotated[
        str | None, typer.Option(help="pretrained (timm's), random, or a .safetensors file [default: pretrained].")
    ] = None,
    backbone_option: Annotated[
        list[str] | None, typer.Option(help="Argument of timm.create_model: pad_type=same (repeatable).")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the network's input [default: the model's].")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Normalisation: one or three numbers [default: the model's].")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Normalisation: one or three numbers [default: the model's].")] = None,
    crop: Annotated[float, typer.Option(help="Share of the short side that the centre crop keeps.")] = 1.0,
    stage: Annotated[str, typer.Option(help="Feature map: final, or a timm stage number such as -2.")] = "final",
    select: Annotated[str, typer.Option(help="Validation metric that picks the epoch: H, T1 or AUSUC.")] = "H",
    split_seed: Annotated[int, typer.Option(help="Seed of the draw of validation classes.")] = 0,
    store_dtype: Annotated[str, typer.Option(help="Region store: float16, bfloat16 or float32.")] = "float16",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed, 16-mixed or 64-true.")] = "32-true",
    accumulate: Annotated[int, typer.Option(help="Micro-batches a step.")] = 1,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(help="Processes that read pictures.")] = 0,
    cache: CacheOption = None,
    report: Annotated[bool, typer.Option(help="Write report.html into the run folder.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Train and test a method; repeat the command to resume.

    Example: `unseen train msdn fieldguide --seeds 5 --protocol both`
    """
    from unseen.report.tables import result_rows
    from unseen.training.config import RunConfig
    from unseen.training.run import fit

    changes = _pairs(recipe or [], "--recipe") | ({"epochs": str(epochs)} if epochs is not None else {})
    config = RunConfig(
        method=method,
        dataset=dataset if dataset == "fieldguide" else str(Path(dataset).expanduser().absolute()),
        backbone=_backbone(
            dataset, backbone, backbone_weights, image_size, backbone_option or [], mean, std, crop, stage
        ),
        preset=preset,
        settings=_pairs(setting or [], "--set"),
        recipe=changes,
        vectors=vectors,
        protocols=_protocols(protocol),
        seeds=_seeds(seeds),
        split_seed=split_seed,
        select=select,
        store_dtype=store_dtype,
        precision=precision,
        accumulate=accumulate,
    )
    folder = output or Path("runs") / f"{method}-{Path(dataset).name}"
    run = _with_bars(lambda bars: fit(config, folder, cache=cache, device=device, workers=workers, report=bars))
    page = _write_report(run, device, cache) if report else None
    if as_json:
        _print_json({"run": str(run.folder), **run.results})
        return
    _table(result_rows([run]))
    _notes(run)
    if page:
        out.print(f"report: {page}", highlight=False, soft_wrap=True)
    out.print(f"run:    {run.folder}", highlight=False, soft_wrap=True)


def _with_bars(work: Callable[[Any], Any]) -> Any:
    from unseen.progress import bars

    try:
        with _quiet_libraries(), bars() as report:
            return work(report)
    except KeyboardInterrupt as stop:  # caught here, since typer makes a silent exit of it
        reason = f" ({stop})" if str(stop) else ""
        err.print(f"stopped{reason}; repeat the command to go on from here", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None


def _write_report(run: Run, device: str, cache: Path | None) -> Path:
    from unseen.report.page import write_report

    return _with_bars(lambda bars: write_report(run, device=device, cache=cache, report=bars))


def _notes(run: Run) -> None:
    from unseen.report.tables import chance, percent

    manifest = run.manifest
    for note in manifest["warnings"]:
        err.print(f"[yellow]note:[/] {_plain(note)}", highlight=False, soft_wrap=True)
    out.print(
        f"T1: unseen pictures among the {manifest['data']['classes_unseen']} unseen classes (chance "
        f"{percent(chance(run))}). U, S: unseen and seen pictures among all classes; H their harmonic mean. "
        "± spread over seeds, [ ] 95% interval over pictures. "
        + ("paper: epoch chosen on the test set." if "paper" in run.config.protocols else ""),
        highlight=False,
        style="dim",
    )


@app.command()
def evaluate(
    run: RunArgument,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also a row a class.")] = False,
    protocol: Annotated[
        str | None, typer.Option(help="honest or paper, of a run of both [default: honest where there is one].")
    ] = None,
    gamma: Annotated[
        float | None, typer.Option(help="Calibration offset off seen scores [default: the run's own].")
    ] = None,
    device: DeviceOption = "auto",
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Test a run's saved models again, from their weights."""
    from unseen.report.tables import percent, result_rows
    from unseen.training.run import METRICS, Run, evaluate_run

    opened = Run(run)
    found = _with_bars(
        lambda bars: evaluate_run(opened, protocol=protocol, gamma=gamma, device=device, cache=cache, report=bars)
    )
    if as_json:
        _print_json(found)
        return
    described = result_rows([opened])[0]
    rows = [
        {
            "seed": seed,
            **{name: percent(values[name]) for name in METRICS},
            "gamma": f"{values['gamma']:.3f}",
            "data": described["data"],
            "backbone": described["backbone"],
        }
        for seed, values in found["seeds"].items()
    ]
    _table(rows, title=f"{described['method']}, {found['protocol']} protocol")
    if per_class:
        _table(
            [
                {
                    "class": row["class"],
                    "": "seen" if row["seen"] else "unseen",
                    "pictures": str(row["pictures"]),
                    "among all": percent(row["among_all"]),
                    "among unseen": percent(row["among_unseen"]),
                }
                for row in found["per_class"]
            ]
        )


PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def _pictures(paths: list[Path]) -> list[Path]:
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

    files = _pictures(images)
    with _quiet_libraries():
        recognizer = Recognizer.load(run, seed=seed, device=device)
        broken: list[UnseenError] = []
        predictions = list(recognizer.predict(files, top=top, among=among, broken=broken.append))
    for error in broken:
        err.print(f"[bold red]error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
    if as_json:
        _print_json([p.as_dict() for p in predictions])
        raise typer.Exit(2 if broken else 0)
    _table(
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


def _signed(value: float) -> str:
    return "0" if abs(value) < 5e-4 else f"{value:+.3f}"


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
    seed: Annotated[int | None, typer.Option(help="Which seed's model [default: the first].")] = None,
    device: DeviceOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Show why: attribute evidence, and where the model looked, as heat maps over the picture."""
    from unseen.explain.figures import account, explanation_figure, said
    from unseen.recognizer import Recognizer

    if image.is_dir():
        raise UnseenError("a folder", where=image, mend="explain one picture at a time")
    files = _pictures([image])
    with _quiet_libraries():
        found = Recognizer.load(run, seed=seed, device=device).explain(
            files[0], target=target, rival=against, among=among
        )
    path = output or Path(f"{image.stem}-why.png")
    if path.suffix.lower() != ".png":
        raise UnseenError("not a .png", where=path, mend="give -o a file name that ends in .png")
    explanation_figure(found, path, top)
    if as_json:
        _print_json({**found.as_dict(), "figure": str(path)})
        return
    shown, rest = account(found, top)
    _table(
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


@app.command(name="list")
def list_things(
    what: Annotated[str, typer.Argument(help="methods, datasets, or stages of a timm model.")] = "methods",
    name: Annotated[
        str | None, typer.Argument(help="One method to tell more of, or the timm model for stages.", show_default=False)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List methods (default), datasets, or the stages of a backbone.

    Examples: `unseen list methods msdn`, `unseen list stages resnet101`
    """
    if what == "methods":
        from unseen.methods import METHODS, find_method

        chosen = METHODS.values() if name is None else [find_method(name)]
        rows = [{"name": m.name, **vars(m.card), "presets": ", ".join(m.presets)} for m in chosen]
        if name is None and not as_json:
            rows = [{k: row[k] for k in ("name", "title", "paper", "presets")} for row in rows]
        elif not as_json:
            rows = [{"": key, rows[0]["name"]: value} for key, value in rows[0].items() if key != "name"]
    elif what == "datasets":
        rows = [
            {"name": "fieldguide", "what": "birds drawn by the program: 60 species, no download"},
            {"name": "a folder", "what": "images/, images.csv (file,class,split), classes.csv (class,seen,attributes)"},
        ]
    elif what == "stages":
        if name is None:
            raise UnseenError("no model named", mend="unseen list stages resnet101, for instance")
        from unseen.backbones import list_stages

        rows = [{"stage": str(s), "channels": str(c), "reduction": f"1/{r}"} for s, c, r in list_stages(name)]
    else:
        raise UnseenError(f'cannot list "{what}"', mend="methods, datasets or stages")
    if as_json:
        _print_json(rows)
    else:
        _table(rows)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where runs and the report go.")] = Path("runs/demo"),
    cache: CacheOption = None,
    device: DeviceOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Draw the built-in birds, train on them, test, and write a report with pictures: the whole way in minutes."""
    from unseen.report.page import write_report
    from unseen.report.tables import result_rows
    from unseen.training.config import RunConfig
    from unseen.training.run import default_backbone, fit

    def one(method: str) -> Run:
        config = RunConfig(method=method, dataset="fieldguide", backbone=default_backbone("fieldguide"))
        if not as_json:
            err.print(f"[bold]{method}[/] on fieldguide", highlight=False)
        return _with_bars(lambda bars: fit(config, output / method, cache=cache, device=device, report=bars))

    runs = [one(method) for method in ("global", "eszsl", "msdn")]
    page = _with_bars(
        lambda bars: write_report(
            runs[-1], others=runs[:-1], path=output / "report.html", device=device, cache=cache, report=bars
        )
    )
    if as_json:
        _print_json({"runs": {r.folder.name: r.results for r in runs}, "report": str(page)})
        return
    _table(result_rows(runs))
    _notes(runs[-1])
    out.print(f"\nLook at the report:  {page.resolve()}", highlight=False, soft_wrap=True)
    out.print(f"Try a picture:       unseen predict {runs[-1].folder} PICTURE", highlight=False, soft_wrap=True)


def _version(value: bool) -> None:
    if value:
        out.print(f"unseen {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show version.")] = False,
) -> None:
    """Recognise classes nobody has photographed, from a table of their attributes."""


if __name__ == "__main__":
    main()
