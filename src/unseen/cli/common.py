"""Shared by all commands: the application, its consoles, common options, tables and progress."""

from __future__ import annotations

import atexit
import errno
import gc
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand, TyperOption

from unseen.cli import completing
from unseen.errors import UnseenError
from unseen.ground.distributed import is_first, lost_others
from unseen.ground.stopping import at_once

_THRESHOLD = gc.get_threshold()
_Result = TypeVar("_Result")


MANY = 20
"""Number of parameters from which a command's help shows its options in groups."""
GROUPS = {
    "Backbone": "backbone backbone_weights backbone_option image_size zoom mirror mean std crop pixels stage "
    "store_dtype reduce vectors",
    "Validation and testing": "protocol seeds select split_seed draws folds holdouts validation_only",
    "Compute": "precision accumulate device engine workers cache memory graph",
}
"""Heading in the help of a long command to the parameters under it."""


class Command(TyperCommand):
    """A command that rejects nan and inf, shows many options in groups, and takes several values after an option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.params) > MANY:
            headings = {name: heading for heading, names in GROUPS.items() for name in names.split()}
            for param in self.params:
                if isinstance(param, TyperOption) and param.name in headings:
                    param.rich_help_panel = headings[param.name]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read ``--images a b`` as ``--images a --images b`` if the option's metavar ends in ``...``."""
        several = {o for p in self.params if str(p.metavar or "").endswith("...") for o in p.opts if o.startswith("-")}
        spread: list[str] = []
        option, first = None, False
        for arg in args:
            if arg.startswith("-") and len(arg) > 1:
                option, first = (arg, True) if arg in several else (None, False)
            elif option is not None and not first:
                spread.append(option)
            else:
                first = False
            spread.append(arg)
        ctx.default_map = {**(ctx.default_map or {}), **self._of_environment(ctx)}
        return super().parse_args(ctx, spread)

    def _of_environment(self, ctx: Any) -> dict[str, Any]:
        """Options from variables such as ``UNSEEN_PREDICT_TOP``; several values are separated by spaces."""
        words: list[str] = []
        place = ctx
        while place.parent is not None:
            words.insert(0, place.info_name)
            place = place.parent
        found: dict[str, Any] = {}
        for param in self.params:
            for option in (o for o in param.opts if o.startswith("--")):
                variable = "_".join(["unseen", *words, option[2:]]).replace("-", "_").upper()
                if value := os.environ.get(variable):
                    found[str(param.name)] = value.split() if param.multiple else value
        return found

    def invoke(self, ctx: Any) -> Any:
        """Check the numbers, then run; Ctrl-C or SIGTERM ends it with one line and status 130."""
        for name, value in ctx.params.items():
            if isinstance(value, float) and not math.isfinite(value):
                option = next(o for p in self.params if p.name == name for o in p.opts)
                raise UnseenError(f"{value} is not a finite number", where=option, hint="pass a number such as 0.5")
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # caught here, since typer turns it into a silent exit
            err.print("stopped")
            raise typer.Exit(STOPPED) from None


app = typer.Typer(
    name="unseen",
    help="Recognize classes without training images, from a table of their attributes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)
out = Console()
err = Console(stderr=True)
errors = Console(stderr=True)
"""Console for errors; no option silences it."""
verbose = False
"""Whether an error is printed with its traceback."""

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
EngineOption = Annotated[
    str | None,
    typer.Option(
        envvar="UNSEEN_ENGINE",
        help="Engine for a frozen backbone: torch, onnxruntime, openvino, openvino:bf16, or auto "
        "(on a CPU ONNX Runtime or OpenVINO if installed, else torch) [default: auto].",
        autocompletion=completing.one_of("engine"),
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        envvar="UNSEEN_DEVICE",
        help="auto, cpu, cuda, cuda:1 or mps.",
        autocompletion=completing.one_of("device"),
    ),
]
MetricsOption = Annotated[
    str | None,
    typer.Option(help="Columns of the table: `all`, or some such as T1,H,top-5 [default: the usual ones]."),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="Cache folder for drawn images and region features [default: $UNSEEN_CACHE or ~/.cache/unseen]."),
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of the model to use [default: the first].")]
RunArgument = Annotated[
    Path, typer.Argument(help="Run folder, or a saved model.", show_default=False, autocompletion=completing.runs)
]


FILES = (
    *(".csv", ".tsv", ".xlsx", ".xls", ".ods", ".parquet", ".json", ".jsonl", ".html", ".htm", ".md", ".tex", ".txt"),
    *(".png", ".jpg", ".jpeg", ".svg", ".pdf", ".zip", ".npy", ".npz", ".safetensors", ".onnx"),
)
"""Extensions that only a file would have."""


def a_folder(path: Path | None) -> Path | None:
    """Callback of a folder to write: raise :class:`UnseenError` for the name of a file."""
    if path is not None and path.suffix.lower() in FILES and not path.is_dir():
        raise UnseenError("this is the name of a file, and a folder is written", where=path, hint="omit the extension")
    return path


def output_folder(text: str) -> Any:
    """The option ``--output`` of a command that writes a folder."""
    return typer.Option("--output", "-o", help=text, callback=a_folder)


def check_ending(path: Path, ending: str) -> None:
    """Raise :class:`UnseenError` for a file to write with another extension."""
    if path.suffix.lower() != ending:
        raise UnseenError(f"not a {ending} file", where=path, hint=f"use a file name that ends in {ending}")


STOPPED = 130
"""Exit status of a command that Ctrl-C or SIGTERM ended."""
FAILED = 1
"""Exit status if some images cannot be read and the others are done, or no row of a comparison; 2: an invalid call."""
_ROOM, _ELSEWHERE = "free some disk space, then repeat the command", "choose a folder you can write to"
_HINTS = {errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EROFS: _ELSEWHERE, errno.EACCES: _ELSEWHERE}


def main() -> None:
    """Run the command; a user error becomes one line on standard error and status 2.

    Of the processes that torchrun starts, only the first prints; errors are printed by all.
    """
    # importing torch creates many objects and hardly any garbage
    gc.set_threshold(100_000, 20, 20)
    atexit.register(_forget)
    warnings.showwarning = _show_warning
    if not is_first():
        out.quiet, sys.stdout = True, StringIO()
    try:
        with at_once():
            status = app(standalone_mode=False)
        if isinstance(status, int) and status:
            sys.exit(status)
    except UnseenError as error:
        if verbose:
            errors.print_exception()
        errors.print(f"[bold red]error:[/] {plain_text(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except ModuleNotFoundError as error:
        from unseen.ground.extras import EXTRA_OF, missing

        name = (error.name or "").partition(".")[0]
        if name not in EXTRA_OF:
            raise
        errors.print(f"[bold red]error:[/] {plain_text(str(missing(name)))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        told = UnseenError(error.strerror or str(error), where=error.filename, hint=_HINTS.get(error.errno or 0))
        errors.print(f"[bold red]error:[/] {plain_text(str(told))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except Exception as error:
        # typer's own usage errors print themselves
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        if not is_first() and lost_others(error):  # they have printed the reason
            sys.exit(1)
        raise


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
    """Print the library's own warnings as notes; drop those of other libraries."""
    if category.__module__.startswith("unseen."):
        err.print(f"[yellow]note:[/] {plain_text(str(message))}", highlight=False, soft_wrap=True)


def _forget() -> None:
    """Skip garbage collection at exit."""
    if not {"onnx", "triton"} & sys.modules.keys():  # their bindings would report remaining objects as leaks
        gc.freeze()


def plain_text(text: str) -> str:
    """Text without anything that rich would read as markup."""
    from rich.markup import escape

    return escape(text)


JSON_VERSION = 1
"""Version of the output of ``--json``; incremented when an entry is renamed, removed or changes its meaning."""


def print_json(value: Any) -> None:
    """Print JSON on standard output: an object with its version; a list is under ``items``. See ``unseen schema``."""
    entries = {"items": value} if isinstance(value, list) else value
    found = {"json_version": JSON_VERSION, **entries}
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def print_table(rows: list[dict[str, str]], columns: dict[str, str] | None = None, title: str | None = None) -> None:
    """Print rows; a column with one value in every row moves above the table."""
    from unseen.report.tables import shared_columns

    if not rows:
        return
    names = columns or {name: name for name in rows[0]}
    shared = [n for n in shared_columns(rows) if n in names]
    if shared:
        out.print(plain_text("   ".join(f"{names[n]}: {rows[0][n]}" for n in shared)), highlight=False)
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in names:
        if name not in shared:
            table.add_column(names[name], overflow="fold", justify="left")
    for row in rows:
        table.add_row(*(plain_text(row[n]) for n in names if n not in shared))
    out.print(table)


def with_bars(work: Callable[[Any], _Result]) -> _Result:
    """Run ``work(progress)`` under progress bars; Ctrl-C prints how to resume and exits with status 130."""
    from unseen.ground.progress import bars

    with stoppable(), bars() as progress:
        return work(progress)


def long_work() -> None:
    """Restore Python's garbage collection thresholds, so that memory stays flat."""
    gc.set_threshold(*_THRESHOLD)


@contextmanager
def stoppable() -> Iterator[None]:
    """Silence libraries; Ctrl-C or SIGTERM prints how to resume and exits with status 130."""
    from unseen.ground.progress import quiet_libraries

    long_work()
    try:
        with quiet_libraries(), at_once():
            yield
    except KeyboardInterrupt as stop:
        reason = f" ({stop})" if str(stop) else ""
        err.print(f"stopped{reason}; repeat the command to resume", highlight=False, soft_wrap=True)
        raise typer.Exit(STOPPED) from None
