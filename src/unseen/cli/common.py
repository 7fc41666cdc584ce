"""What every command shares: the application, its consoles, common options, tables and progress."""

from __future__ import annotations

import atexit
import errno
import gc
import json
import math
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
from typer.core import TyperCommand

from unseen.errors import UnseenError
from unseen.ground.distributed import is_first, lost_others

_THRESHOLD = gc.get_threshold()
_Result = TypeVar("_Result")


class Command(TyperCommand):
    """A command whose numbers are finite, and whose options for several values take them in a row."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """``--images a b`` is ``--images a --images b`` where the option's metavar ends in ``...``."""
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
        return super().parse_args(ctx, spread)

    def invoke(self, ctx: Any) -> Any:
        """Run it once its options hold together."""
        for name, value in ctx.params.items():
            if isinstance(value, float) and not math.isfinite(value):
                option = next(o for p in self.params if p.name == name for o in p.opts)
                raise UnseenError(f"{value} is not a finite number", where=option, hint="a number such as 0.5")
        return super().invoke(ctx)


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
errors = Console(stderr=True)
"""Where errors go, which no option silences."""
verbose = False
"""Whether an error is shown with where it comes from."""

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
EngineOption = Annotated[
    str | None,
    typer.Option(
        envvar="UNSEEN_ENGINE",
        help="What computes a frozen network: torch, openvino, onnxruntime, openvino:bf16, or auto: the fastest that "
        "is installed on a CPU, torch elsewhere [default: auto].",
    ),
]
DeviceOption = Annotated[str, typer.Option(envvar="UNSEEN_DEVICE", help="auto, cpu, cuda, cuda:1 or mps.")]
MetricsOption = Annotated[
    str | None,
    typer.Option(help="Columns of the table: `all`, or some such as T1,H,top-5 [default: the usual ones]."),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="Where drawn images and region stores are kept [default: $UNSEEN_CACHE or ~/.cache/unseen]."),
]
RunArgument = Annotated[Path, typer.Argument(help="A run's folder, or a saved model.", show_default=False)]


FAILED = 1
"""Status where some images could not be read and the others are done; 2 is a wrong call."""
_ROOM, _ELSEWHERE = "make room, then repeat the command", "choose a folder you can write to"
_HINTS = {errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EROFS: _ELSEWHERE, errno.EACCES: _ELSEWHERE}


def main() -> None:
    """Run the command; a user's mistake is one line on standard error and status 2.

    Of several processes that torchrun started, the first alone has something to say, but for mistakes.
    """
    # to import torch makes very many objects and hardly any garbage, for which Python looks again and again
    gc.set_threshold(100_000, 20, 20)
    atexit.register(_forget)
    warnings.showwarning = _show_warning
    if not is_first():
        out.quiet, sys.stdout = True, StringIO()
    try:
        status = app(standalone_mode=False)
        if isinstance(status, int) and status:
            sys.exit(status)
    except UnseenError as error:
        if verbose:
            errors.print_exception()
        errors.print(f"[bold red]error:[/] {plain_text(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        told = UnseenError(error.strerror or str(error), where=error.filename, hint=_HINTS.get(error.errno or 0))
        errors.print(f"[bold red]error:[/] {plain_text(str(told))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except Exception as error:
        # typer's own usage errors know how to show themselves
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        if not is_first() and lost_others(error):  # which have said why
            sys.exit(1)
        raise


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
    """The library's own warnings are notes; those of others are its programmers' business."""
    if category.__module__.startswith("unseen."):
        err.print(f"[yellow]note:[/] {plain_text(str(message))}", highlight=False, soft_wrap=True)


def _forget() -> None:
    """No search for garbage at the end of the process."""
    if not {"onnx", "triton"} & sys.modules.keys():  # whose bindings would take what is left for leaks, and say so
        gc.freeze()


def plain_text(text: str) -> str:
    """Text with nothing that rich would read as markup."""
    from rich.markup import escape

    return escape(text)


def print_json(value: Any) -> None:
    """JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(rows: list[dict[str, str]], columns: dict[str, str] | None = None, title: str | None = None) -> None:
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
        table.add_row(*(plain_text(row[n]) for n in names if n not in shared))
    out.print(table)


def with_bars(work: Callable[[Any], _Result]) -> _Result:
    """``work(progress)`` under progress bars; Ctrl-C says how to go on and ends with status 130."""
    from unseen.ground.progress import bars

    with stoppable(), bars() as progress:
        return work(progress)


def long_work() -> None:
    """From here on garbage is looked for as often as Python does, so that memory stays flat."""
    gc.set_threshold(*_THRESHOLD)


@contextmanager
def stoppable() -> Iterator[None]:
    """Quiet libraries; Ctrl-C or SIGTERM says how to go on and ends with status 130."""
    from unseen.ground.progress import quiet_libraries
    from unseen.ground.stopping import at_once

    long_work()
    try:
        with quiet_libraries(), at_once():
            yield
    except KeyboardInterrupt as stop:  # caught here, since typer makes a silent exit of it
        reason = f" ({stop})" if str(stop) else ""
        err.print(f"stopped{reason}; repeat the command to go on from here", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
