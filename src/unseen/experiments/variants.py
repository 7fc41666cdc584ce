"""Variants: a method with a preset and changed settings as one text, for a row of a comparison."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from unseen.errors import UnseenError
from unseen.methods import METHODS, every_method, find_method, find_preset
from unseen.training.config import RunConfig

_PATH = r"[\w.]+:[^\W\d][\w.]*(?=$|[@:])"
_FORM = re.compile(rf"(?:(?P<name>[^=:@]+)=)?(?P<method>{_PATH}|[^=:@]+)(?:@(?P<preset>[^=:@]+))?(?::(?P<changes>.*))?")
FORM = "[NAME=]METHOD[@PRESET][:KEY=VALUE,...]"


@dataclass(frozen=True)
class Variant:
    """One row.

    Args:
        name: name in tables; also of its run folder.
        method: name in the registry, or ``package.module:Class``.
        preset: named settings of the method; ``None`` for those of the dataset.
        changes: settings and recipe entries to change, as values or text.
        says: what is special about it, for readers of the table.
    """

    name: str
    method: str
    preset: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    says: str = ""

    @property
    def folder(self) -> str:
        """The name as a folder name."""
        return re.sub(r"[^\w.=@,+-]+", "-", self.name).strip("-.") or "-"

    def config(self, base: Mapping[str, Any], recipe: Mapping[str, str] | None = None) -> RunConfig:
        """Configuration of the run that measures it.

        Args:
            base: entries of :class:`RunConfig` that all rows share, including the dataset.
            recipe: recipe entries that all rows with a recipe share.

        Raises:
            UnseenError: no such method, preset, setting or recipe entry.
        """
        method = find_method(self.method)
        _, preset = find_preset(method, "", self.preset)
        known = {f.name for f in fields(preset.settings)}
        entries = set() if preset.recipe is None else {f.name for f in fields(preset.recipe)}
        settings, steps = {}, {} if preset.recipe is None else dict(recipe or {})
        for name, value in self.changes.items():
            if name in known:
                settings[name] = value
            elif name in entries:
                steps[name] = value
            else:
                near = difflib.get_close_matches(name, known | entries, 1)
                hint = (
                    f'did you mean "{near[0]}"?'
                    if near
                    else f"use one of {', '.join(sorted(known | entries)) or 'none'}"
                )
                raise UnseenError(f'no setting or recipe entry "{name}"', where=self.name, hint=hint)
        return RunConfig(method=self.method, preset=self.preset, settings=settings, recipe=steps, **base)


def parse_variant(text: str) -> Variant:
    """``[NAME=]METHOD[@PRESET][:KEY=VALUE,...]``, for instance ``no cal=msdn@sun:lambda_cal=0,epochs=10``.

    Values may contain commas: ``msdn:fusion=0.5,0.5``.

    Raises:
        UnseenError: the text does not have that form.
    """
    found = _FORM.fullmatch(text.strip())
    hint = f"{FORM}, such as msdn@sun:lambda_cal=0.2"
    if found is None:
        raise UnseenError(f'cannot read "{text}"', hint=hint)
    changes: dict[str, str] = {}
    last = None
    for part in (found["changes"] or "").split(",") if found["changes"] is not None else ():
        name, equals, value = part.partition("=")
        if equals and name.strip():
            last = name.strip()
            changes[last] = value.strip()
        elif last is not None and not equals:
            changes[last] += f",{part}"
        else:
            raise UnseenError(f'cannot read "{text}"', hint=hint)
    method = found["method"].strip()
    module, colon, _ = method.partition(":")
    if colon and module in METHODS and METHODS[module].__module__ != module:  # a change without a value
        raise UnseenError(f'cannot read "{text}"', hint=hint)
    short = find_method(method).name
    name = found["name"] or (text.strip() if found["changes"] or found["preset"] else short)
    return Variant(name.strip(), method, found["preset"], changes)


def parse_variants(texts: Iterable[str]) -> list[Variant]:
    """Parse several variants; ``all`` stands for every method.

    Raises:
        UnseenError: one does not have that form, or two have the same name.
    """
    variants: list[Variant] = []
    for text in texts:
        variants += [Variant(name, name) for name in every_method()] if text == "all" else [parse_variant(text)]
    check_names(variants)
    return variants


def check_names(variants: Sequence[Variant]) -> None:
    """Raise an :class:`UnseenError` if two rows would share a folder, or there are no rows."""
    if not variants:
        raise UnseenError("nothing to compare", hint="pass one or more methods")
    folders: dict[str, Variant] = {}
    for variant in variants:
        other = folders.setdefault(variant.folder.lower(), variant)
        if other is not variant:
            raise UnseenError(f'"{variant.name}" appears twice', hint="name one of them: NAME=METHOD...")
