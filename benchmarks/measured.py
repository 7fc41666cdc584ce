"""Shared by benchmarks and fault campaigns: machine, sides timed in turn, result files, their tables in docs/.

A result file is `{"command", "date", "seconds", "machine", "tables": {title: [row, ...]}, ...}`; a row is a dictionary
whose keys are the table's columns. In a page of docs/, the lines between `<!-- measured: FILE | TITLE -->` and
`<!-- end -->` are that table. :func:`fill` writes them and a test compares them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_MARK = re.compile(r"(<!-- measured: (?P<file>\S+) \| (?P<title>[^\n]+?) -->\n).*?(<!-- end -->)", re.DOTALL)

Row = Mapping[str, Any]


def machine() -> dict[str, Any]:
    """Processor, cores, threads and versions, as stated beside every figure."""
    import psutil
    import torch

    found = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def alternately(
    sides: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: int = 1,
) -> dict[str, float]:
    """Median seconds of each side, run in turn, so that other load affects all of them."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(warm_up):
        for run in sides.values():
            run()
    for _ in range(repeats):
        for name, run in sides.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of log cost over log size by least squares: 1 if cost is proportional to size."""
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def markdown(rows: Iterable[Row]) -> str:
    """Rows as a Markdown table; missing cells are empty."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(c)) for c in columns] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,}"
        if _is_number(value)
        else str(value)
    )
    return text.replace("|", "\\|").replace("\n", " ")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def finish(
    output: Path | None,
    tables: Mapping[str, Sequence[Row]],
    *,
    began: float | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Print the tables, and write the result file if requested.

    Args:
        output: result file.
        tables: rows by title.
        began: ``time.monotonic()`` at the start.
        facts: further facts about the result (settings, agreement, notes).
    """
    found: dict[str, Any] = {"command": _command(), "date": datetime.now(UTC).strftime("%Y-%m-%d")}
    if began is not None:
        found["seconds"] = round(time.monotonic() - began)
    found |= {"machine": machine(), "tables": {title: list(rows) for title, rows in tables.items()}, **facts}
    for title, rows in tables.items():
        print(f"\n{title}\n\n{markdown(rows)}", flush=True)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def _command() -> str:
    """The command line, without the paths of this machine."""
    main = sys.modules["__main__"]
    module = getattr(main, "__spec__", None)
    name = module.name.removesuffix(".__main__") if module else Path(sys.argv[0]).name
    return " ".join(["python -m", name, *(Path(a).name if a.startswith("/") else a for a in sys.argv[1:])])


def fill(page: Path, root: Path = ROOT) -> str:
    """The page's text with every marked table regenerated from its result file."""

    def table(found: re.Match[str]) -> str:
        file, title = root / found["file"], found["title"]
        if "results" not in file.relative_to(root).parts:
            raise SystemExit(f'{page.name}: "{found["file"]}" is not in a folder of results')
        if not file.is_file():
            return f"{found[1]}\nNot yet measured.\n\n{found[4]}"
        tables = json.loads(file.read_text(encoding="utf-8"))["tables"]
        if title not in tables:
            raise SystemExit(f'{page.name}: {found["file"]} has no table "{title}"; it has {", ".join(tables)}')
        return f"{found[1]}\n{markdown(tables[title])}\n{found[4]}"

    return _MARK.sub(table, page.read_text(encoding="utf-8"))


def fill_docs(write: bool, root: Path = ROOT) -> list[str]:
    """Names of the pages whose tables differ from the result files; optionally fixes them."""
    stale = []
    for page in sorted((root / "docs").rglob("*.md")):
        text = fill(page, root)
        if text != page.read_text(encoding="utf-8"):
            stale.append(str(page.relative_to(root)))
            if write:
                page.write_text(text, encoding="utf-8")
    return stale
