"""Changes to nested values, and to their JSON and YAML."""

# ruff: noqa: E501 - lists of odd values
from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

import yaml

from faults.fuzz import canary
from faults.fuzz.mutate import spoil

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, float("nan"), float("inf"), 1e308, 10**30, -(10**30), 2**63, 2**31, 10**6, "", " ", "x", "x" * 5000,
    "../x", "/etc/passwd", "\x00", "\x1b[31m", "\u202e", "\ud800", "nan", "1e400", [], {}, [[]], [None], {"": None}, {"a": 1}, [1, 2, 3], ["x"] * 50,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, child in inside for p in places(child, (*path, key)))]


def spoil_value(value: Any, rng: Random) -> tuple[Any, str]:
    """A copy with 1 to 3 changes: a value replaced, removed, added or renamed."""
    found, said = copy.deepcopy(value), []
    for _ in range(1 + min(2, int(rng.expovariate(1)))):
        path = rng.choice(places(found))
        said.append(".".join(map(str, path)) or "all")
        if not path:
            if rng.random() < 0.2:
                found = rng.choice(ODD)
            continue
        parent = found
        for key in path[:-1]:
            parent = parent[key]
        how = rng.choice(("odd", "odd", "odd", "near", "drop", "more", "again"))
        key = path[-1]
        if how == "odd":
            parent[key] = copy.deepcopy(rng.choice(ODD))
        elif how == "near":
            parent[key] = _near(parent[key], rng)
        elif how == "drop":
            del parent[key]
        elif how == "more" and isinstance(parent, dict):
            parent[rng.choice(("x", "", "name", "weights", "__class__"))] = rng.choice(ODD)
        elif isinstance(parent, list):
            parent.extend([copy.deepcopy(parent[key])] * rng.choice((1, 100)))
        elif isinstance(parent, dict):
            parent[key] = [parent[key]]
    return found, ", ".join(said)


def _near(value: Any, rng: Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, -value, value * 1000, value / 2, str(value), value * 1e9))
    if isinstance(value, str):
        return rng.choice((value + "x", value.upper(), value[:-1], f" {value} ", value * 2))
    return rng.choice(ODD)


def as_json(value: Any, rng: Random) -> tuple[bytes, str]:
    """JSON, sometimes with invalid content that JSON files often have."""
    text = json.dumps(value)
    how = rng.choice(("plain",) * 6 + ("deep", "digits", "bytes", "bytes", "bom", "utf-16", "twice", "lone"))
    if how == "deep":
        return (
            (b"[" * 100_000, how) if rng.random() < 0.5 else (text.replace(": ", ": [" + "[" * 5000, 1).encode(), how)
        )
    if how == "digits":
        return text.replace(": ", ": " + "9" * rng.choice((400, 6000)), 1).encode(), how
    if how == "bytes":
        return spoil(text.encode(), rng)
    if how == "bom":
        return b"\xef\xbb\xbf" + text.encode(), how
    if how == "utf-16":
        return text.encode("utf-16"), how
    if how == "twice":
        return (text + text).encode(), how
    if how == "lone":
        return text.replace('"', '"\\ud800', 1).encode(), how
    return text.encode(), how


def as_yaml(value: Any, rng: Random) -> tuple[bytes, str]:
    """YAML, sometimes a bomb or one that requests code."""
    try:
        text = yaml.safe_dump(value, sort_keys=False)
    except yaml.YAMLError:
        return b"", "empty"
    how = rng.choice(
        ("plain",) * 6
        + ("aliases", "loop", "deep", "tag", "tag", "digits", "bytes", "bytes", "merge", "documents", "flow")
    )
    if how == "aliases":
        lines = [
            "a0: &a0 [x, x, x, x, x, x, x, x, x]",
            *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)),
        ]
        return ("\n".join(lines) + "\n" + text.replace("notes:", "notes: *a11 #", 1)).encode(), how
    if how == "loop":
        return text.replace("notes:", "notes: &n [*n]\nwas:", 1).encode(), how
    if how == "deep":
        return rng.choice((b"[" * 20_000, ("x: " + "{a: " * 3000).encode(), b"- " * 20_000)), how
    if how == "tag":
        tag = rng.choice((
            f'!!python/object/apply:os.system ["{canary.SHELL}"]', f'!!python/object/new:subprocess.Popen [["touch", "{canary.MARK}"]]',
            "!!python/name:os.system", "!!python/module:os", "!!binary 'x'", "!!timestamp 9999-99-99", "!!float x", "!!int x", "!!set {a, b}",
            "!!omap [a: 1]", "!!null x", "!!bool x", "2026-01-31", "0o17", "1:30", "!!int '0x'", "2001-13-99", "=", "<<: 1",
        ))  # fmt: skip
        lines = text.splitlines()
        at = rng.randrange(len(lines) or 1)
        if lines and ":" in lines[at]:
            lines[at] = f"{lines[at].partition(':')[0]}: {tag}"
        return "\n".join(lines).encode(), f"{how} {tag[:20]}"
    if how == "digits":
        return text.replace(": ", ": " + "9" * rng.choice((400, 6000)), 1).encode(), how
    if how == "bytes":
        return spoil(text.encode(), rng)
    if how == "merge":
        return ("<<: " + rng.choice(("*x", "[1]", "{a: 1}")) + "\n" + text).encode(), how
    if how == "documents":
        return (text + "---\n" + text).encode(), how
    if how == "flow":
        return text.replace("\n", "\t\n", 3).encode(), how
    return text.encode(), how
