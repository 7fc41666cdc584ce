"""Results as rows: one form for the terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unseen.evaluation.coarser import answers_in_words
from unseen.evaluation.registry import HEADLINES, chosen_metrics, every_metric
from unseen.ground.words import counted, size_text

if TYPE_CHECKING:
    from unseen.training.folder import Run  # it takes seconds, and not every table is about runs


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as percent, or a dash."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def metric_cell(entry: dict[str, Any] | None, seeds: int) -> str:
    """Mean, spread over seeds if there are several, and the bootstrap interval."""
    if entry is None or entry["mean"] is None:
        return "–"
    text = percent(entry["mean"])
    if seeds > 1:
        text += f" ± {percent(entry['std'])}"
    if entry["low"] is not None:
        text += f"\n[{percent(entry['low'])}, {percent(entry['high'])}]"
    return text


def markdown_table(rows: Sequence[Mapping[str, str]], legend: str) -> str:
    """Rows with the same columns as a Markdown table, with a legend below."""
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0]), *(" | ".join(row.values()) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{legend}\n"


def validation_words(splits: Mapping[str, Any], among: str | None = None) -> str:
    """The validation classes that a manifest names, and of how many draws they are the first; ``among`` replaces it."""
    draws = splits.get("validation_draws", 1)
    return str(splits["validation_source"]) + (f", the first of {among or f'{draws} draws'}" if draws > 1 else "")


def metrics_legend(names: Sequence[str]) -> str:
    """Meaning of a table's columns."""
    known = every_metric()
    return "; ".join(f"{name}: {known[name].meaning}" for name in names if name in known)


def result_rows(runs: Sequence[Run], metrics: Sequence[str] | None = None) -> list[dict[str, str]]:
    """One row per run and protocol; every row states its data, backbone, protocol and seeds.

    Args:
        runs: finished runs.
        metrics: columns; ``None`` for those of every table.
    """
    rows, columns = [], chosen_metrics() if metrics is None else metrics
    for run in runs:
        results, manifest = run.results, run.manifest
        for protocol, found in results["protocols"].items():
            names = list(found["seeds"])
            label = "none" if found["deterministic"] else ", ".join(names)
            backbone = manifest["backbone"]
            how = "frozen" if backbone["frozen"] else "fine-tuned"
            how += f", {backbone['reduce']}" if backbone.get("reduce") else ""
            rows.append(
                {
                    "method": manifest["method"]["name"],
                    "protocol": protocol,
                    **{name: metric_cell(found["metrics"].get(name), len(names)) for name in columns},
                    "data": f"{manifest['data']['name']} ({manifest['data']['fingerprint'][:8]})",
                    "backbone": f"{backbone['name']}{pixels(backbone)}, {backbone['weights']}, {how}",
                    "seeds": label,
                }
            )
    return rows


def pixels(backbone: Mapping[str, Any]) -> str:
    """Side of the network's input and its looks, after a comma; empty for imported features."""
    found = size_text(backbone["image_size"], backbone["zoom"], backbone["mirror"])
    return f", {found}" if found else ""


def shared_columns(rows: Sequence[dict[str, str]]) -> list[str]:
    """Those of data, backbone and seeds that are the same in every row and can be stated above the table."""
    return [name for name in ("data", "backbone", "seeds") if len({row.get(name) for row in rows}) == 1]


def chances(run: Run) -> dict[str, float]:
    """Chance levels of the metrics for which they are meaningful."""
    data = run.manifest["data"]
    found = {name: m.chance(data["classes_seen"], data["classes_unseen"]) for name, m in every_metric().items()}
    return {name: value for name, value in found.items() if value is not None}


def rank_rows(found: Mapping[str, Any], seeds: int | None = None) -> list[dict[str, str]]:
    """Accuracy of the class itself and at each coarser rank, finest first; empty if the classes have no ranks.

    Args:
        found: a protocol's numbers, those of validation, or of class hold-outs.
        seeds: number of seeds, or of hold-outs; by default that of ``found``.
    """
    if not found.get("ranks"):
        return []
    levels = {"class": found["metrics"], **dict(reversed(found["ranks"].items()))}
    names = [name for name in next(iter(found["ranks"].values())) if found["metrics"][name]["mean"] is not None]
    seeds = len(found["seeds"]) if seeds is None else seeds
    return [
        {"rank": rank, **{name: metric_cell(metrics.get(name), seeds) for name in names}}
        for rank, metrics in levels.items()
    ]


def coarser_sentences(found: Mapping[str, Any]) -> list[str]:
    """What coarser answers were worth for the first seed, on test images or else on validation images."""
    for entry in found["seeds"].values():
        ranks = (entry.get("calibration") or {}).get("ranks")
        if ranks:
            tested = "test" in ranks and ranks["test"]["listed"]["images"]
            return answers_in_words(ranks["test" if tested else "validation"], "test" if tested else "validation")
    return []


def race_rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The race of ``auto``, one row per method, best first; empty if the run had none."""
    race = results.get("race")
    if not race:
        return []
    rows = []
    for entry in race["entries"]:
        told = "" if entry["H"] is None else percent(entry["H"])
        if entry["H"] is None:
            told = f"not ready in time, given up after {entry['seconds']} s"
        elif "untrained" in entry:
            told += " without training, which did not help"
        elif "stopped" in entry:
            told += f" on {entry['stopped']} of {counted(entry['of'], 'draw')}, then given up"
        rows.append(
            {
                "method": entry["method"],
                "H on validation classes": told,
                "H on each draw": " ".join(percent(value) for value in entry["draws"] or []),
                "result": _race_result(entry, race),
            }
        )
    return rows


def _race_result(entry: Mapping[str, Any], race: Mapping[str, Any]) -> str:
    """Why an entry of the race was kept or not."""
    method = entry["method"]
    if method == race["winner"]:
        return "kept"
    if entry["H"] is None:
        return "not ready in time"
    if "untrained" in entry:
        return "training did not help"
    if "stopped" in entry:
        return "given up early"
    for duel in race["duels"]:
        if duel["against"] == method and _won(duel):
            return f"led until {duel['method']}"
    for duel in race["duels"]:
        if duel["method"] == method:
            gain = 100 * duel["difference"]
            if gain > 0:
                return f"ahead of {duel['against']} by {gain:.1f} points, not by more than the error"
            return f"{-gain:.1f} points behind {duel['against']}"
    closed = race["duels"][0]["against"] if race["duels"] else race["winner"]
    return f"validation chose {closed} among closed forms"


def _won(duel: Mapping[str, Any]) -> bool:
    return duel["error"] is not None and duel["difference"] > duel["error"]


def paper_choice(run: Run) -> str:
    """What a run chose on the test set under ``paper``; empty without that protocol."""
    found = run.results["protocols"].get("paper")
    if found is None:
        return ""
    chosen = next(iter(found["seeds"].values()))["chosen"]
    pick = chosen[HEADLINES[-1]]
    things = ["the epoch"] if "epoch" in pick else []
    things += ["hyperparameters"] if pick.keys() - {"epoch"} else []
    if not things:
        return "paper: there is nothing to choose on the test set."
    return f"paper: {' and '.join(things)} {'is' if things == ['the epoch'] else 'are'} chosen on the test set."


def race_sentence(results: Mapping[str, Any]) -> str:
    """How the race was decided, a sentence per trained method that was ready; empty if there was no race."""
    race = results.get("race")
    if not race:
        return ""
    told = []
    for entry in race["entries"]:
        if "stopped" in entry:
            on = "the first draw" if entry["stopped"] == 1 else f"the first {entry['stopped']} draws"
            told.append(
                f"{entry['method']} was given up early: on {on}, its H was {100 * entry['behind']:.1f} points lower "
                "than that of the closed form."
            )
    for duel in race["duels"]:
        gain, error = 100 * duel["difference"], duel["error"]
        within = "one draw alone" if error is None else f"standard error {100 * error:.1f}"
        against = "higher" if gain >= 0 else "lower"
        told.append(
            f"On the draws measured for both, the H of {duel['method']} is {abs(gain):.1f} points {against} "
            f"than that of {duel['against']} ({within})."
        )
    if race["duels"]:
        told.append("A method wins only if it leads by more than the standard error.")
    return " ".join(told)
