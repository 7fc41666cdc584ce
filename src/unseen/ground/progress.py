"""Progress of long work: one callback, and its display in a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Protocol

from unseen.ground.distributed import is_first

SHOWN = 6
"""Bars in a terminal: those of the latest tasks."""
LONG = 30
"""A note of more characters stands above the bars."""
SECONDS = 30.0
"""Interval between progress lines in a log file, in seconds."""


class Progress(Protocol):
    """Called often; must be cheap."""

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` steps of a task are finished."""


_silenced = Event()


def silence_bars() -> None:
    """Hide progress bars from now on."""
    _silenced.set()


def silent(task: str, done: int, total: int, note: str = "") -> None:
    """Report nothing."""


@contextmanager
def bars() -> Iterator[Progress]:
    """Progress bars with remaining time on standard error; a line now and then if that is not a terminal."""
    if not is_first() or _silenced.is_set():
        yield silent
        return
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Task, TaskID, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Note(TextColumn):
        """The column that a narrow terminal cuts."""

        def render(self, task: Task) -> Text:
            text = super().render(task)
            text.no_wrap, text.overflow = True, "ellipsis"
            return text

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=10 if console.width < 100 else 40),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        Note("{task.fields[note]}", table_column=Column(no_wrap=False)),
    )
    with rich_progress.Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        tasks: dict[str, TaskID] = {}
        finished: set[str] = set()
        above: dict[str, str] = {}
        said = time.monotonic()

        def tell(task: str, done: int, total: int, note: str = "") -> None:
            nonlocal said
            if not total:
                return
            if console.is_terminal and len(note) > LONG:
                if above.get(task) != note:
                    above[task] = note
                    console.print(f"{task} {note}", highlight=False, soft_wrap=True)
                note = ""
            if task not in tasks:
                for old in list(tasks.values())[: 1 - SHOWN]:
                    shown.update(old, visible=False)
                tasks[task] = shown.add_task(task, total=total, completed=done, note=note)
                if not console.is_terminal:
                    console.print(f"{task} ({total}) {note}".rstrip(), highlight=False)
            shown.update(tasks[task], completed=done, total=total, note=note)
            if not console.is_terminal and done < total and time.monotonic() - said > SECONDS:
                said = time.monotonic()
                console.print(f"{task}: {done} of {total} {note}".rstrip(), highlight=False)
            if done >= total and not console.is_terminal and task not in finished:
                finished.add(task)
                console.print(f"{task}: done {note}".rstrip(), highlight=False)

        yield tell


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep library messages out of the terminal."""
    import logging
    import warnings

    for library in ("lightning_fabric", "huggingface_hub", "timm"):
        logging.getLogger(library).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning_fabric")
        yield
