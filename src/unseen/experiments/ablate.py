"""Ablations declared by a method, and sweeps over one of its settings: comparisons with a fixed set of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unseen.errors import UnseenError
from unseen.experiments.compare import Comparison, compare, name
from unseen.experiments.variants import Variant
from unseen.methods import find_method
from unseen.methods.settings import as_text
from unseen.report.comparison import write_comparison
from unseen.report.sweep import write_sweep
from unseen.training.plan import resolve_settings

FULL = "full"


def ablation_variants(base: Variant) -> list[Variant]:
    """The method as requested (``full``), and each of its declared ablations.

    Raises:
        UnseenError: the method declares none.
    """
    declared = find_method(base.method).ablations
    if not declared:
        hint = "pass --sweep, or use `unseen compare`"
        raise UnseenError("has no ablations", where=base.method, hint=hint)
    rows = [replace(base, name=FULL, says="full method")]
    for title, ablation in declared.items():
        changes = as_text(ablation.changes)
        if ablation.method is None:
            changes = {**base.changes, **changes}
            rows.append(Variant(title, base.method, base.preset, changes, ablation.says))
        else:
            rows.append(Variant(title, ablation.method, None, changes, ablation.says))
    return rows


def distinct(rows: list[Variant], base: Mapping[str, Any], say: Callable[[str], None]) -> list[Variant]:
    """The rows without those that equal an earlier row's training, because there was nothing to remove."""
    found: dict[Any, Variant] = {}
    for row in rows:
        trained = (row.method, *resolve_settings(row.config(base), Path(base["dataset"]).name)[1:])
        if trained in found:
            say(f"{row.name}: skipped, equal to {found[trained].name} with these settings")
        else:
            found[trained] = row
    return list(found.values())


def sweep_variants(base: Variant, text: str) -> tuple[str, list[float], list[Variant]]:
    """Name of a setting, its values and a row for each, from ``KEY=VALUE,VALUE,...``.

    Raises:
        UnseenError: the text does not have that form.
    """
    key, equals, listed = text.partition("=")
    texts = [v.strip() for v in listed.split(",") if v.strip()]
    try:
        values = [float(v) for v in texts]
    except ValueError:
        values = []
    if not (equals and key.strip() and values) or len(set(values)) < len(values):
        raise UnseenError(
            f'"{text}" is not a sweep', where="--sweep", hint="use distinct values, such as lambda_cal=0.01,0.1,1"
        )
    key = key.strip()
    rows = [Variant(f"{key}={v}", base.method, base.preset, {**base.changes, key: v}) for v in texts]
    return key, values, rows


def ablate(
    asked: Comparison,
    folder: Path | str,
    *,
    base: Variant,
    sweep: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Compare a method with its ablations, or with itself under other values of a setting.

    Args:
        asked: what all rows share; its ``variants``, ``reference`` and ``title`` are replaced.
        folder: as in :func:`unseen.experiments.compare.compare`.
        base: the method, and its changes in every row.
        sweep: ``KEY=VALUE,VALUE,...`` for a sweep, which also draws ``sweep.png`` and ``sweep.svg``.
        say: called with a line about each row.

    Returns:
        Content of ``compare.json``.
    """
    where = Path(asked.base["dataset"]).name
    if sweep is None:
        rows = distinct(ablation_variants(base), asked.base, say)
        return compare(
            replace(asked, variants=rows, reference=FULL, title=f"Ablations of {base.name} on {where}"), folder, say=say
        )
    key, values, rows = sweep_variants(base, sweep)
    asked = replace(asked, variants=rows, reference=None, title=f"{base.name} on {where}: {key}")
    found = compare(asked, folder, say=say)
    figure = write_sweep(found, key, values, Path(folder) / ("sweep-validation" if asked.validation_only else "sweep"))
    write_comparison(found, Path(folder), name(asked), [figure])
    return found
