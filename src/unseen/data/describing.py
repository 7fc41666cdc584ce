"""Draft a class table with a language model behind any OpenAI-compatible endpoint, for a person to check.

Every cell is recorded in ``provenance.csv`` as drafted, with model and date. Finished answers stay in a journal beside
the table until it is complete, so nothing is requested twice.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from unseen.data.dataset import digest
from unseen.data.provenance import COLUMNS, DRAFTED, PROVENANCE
from unseen.errors import DataError, UnseenError
from unseen.ground.checked import checked
from unseen.ground.extras import needed
from unseen.ground.files import csv_text, write_text
from unseen.ground.journal import Journal
from unseen.ground.progress import Progress, silent

T = TypeVar("T")
BATCH = 8
"""Number of classes per request."""
SECONDS = 300.0
"""Timeout of an answer in seconds; local models are slow."""
KINDS = ("yes/no", "words", "number")
SYSTEM = (
    "You draft tables of visual attributes, from which a program recognizes classes in photographs. State only what "
    "can be seen in a photograph of one member of the class. Where you do not know, say null; never guess. "
    "Answer with one JSON object and nothing else."
)
HINT = "repeat the command to resume, or pass another --model"


@dataclass(frozen=True)
class Attribute:
    """A planned column.

    Args:
        name: name of the column.
        kind: one of :data:`KINDS`.
        values: allowed values; empty for any.
    """

    name: str
    kind: str = "words"
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Endpoint:
    """The language model to use.

    Args:
        url: base URL including the version: ``https://api.openai.com/v1``, ``http://localhost:11434/v1``.
        model: name of the model there.
        key: bearer token; empty for none.
    """

    url: str
    model: str
    key: str = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UnseenError(
                "not an endpoint address", where=self.url, hint="use, for example, http://localhost:11434/v1"
            )
        if not self.model:
            raise UnseenError("no model", where="--model", hint="pass a model of the endpoint")
        if self.key and parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise UnseenError("a key over plain http", where=self.url, hint="use https, or unset the key's variable")

    @property
    def host(self) -> str:
        """Name of the model in ``provenance.csv``."""
        return urlsplit(self.url).netloc.rpartition("@")[2]


class _Proposed(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=80)]
    kind: Literal["yes/no", "words", "number"]
    values: list[str] = []


class _Proposals(BaseModel):
    attributes: Annotated[list[_Proposed], Field(min_length=1, max_length=300)]


class _Values(BaseModel):
    classes: dict[str, dict[str, Any]]


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message


class _Reply(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]


def parse_attributes(text: str) -> list[Attribute]:
    """Parse attributes, one per line: ``crest: yes/no``, ``crown color: red, black``, ``eye size``.

    Raises:
        DataError: there are none, or one is repeated.
    """
    found: list[Attribute] = []
    for line in filter(None, map(str.strip, text.replace(";", "\n").splitlines())):
        name, _, rest = (part.strip() for part in line.partition(":"))
        values = tuple(filter(None, map(str.strip, rest.split(","))))
        kind = rest.casefold() if rest.casefold() in KINDS else "words"
        found.append(Attribute(name, kind, () if rest.casefold() in KINDS else values))
    names = [a.name.casefold() for a in found]
    twice = next((a.name for i, a in enumerate(found) if a.name.casefold() in names[:i]), None)
    if twice is not None or not found:
        problem = "no attributes" if twice is None else f'"{twice}" appears twice'
        raise DataError(problem, where="--attributes", hint="write one per line, such as crown color: red, black")
    return found


def asked_for_attributes(classes: Sequence[str], about: str, count: int) -> str:
    """The request for columns."""
    return (
        f"Classes{f' ({about})' if about else ''}:\n" + "\n".join(classes) + f"\n\nPropose {count} visual attributes "
        "that differ between these classes, each shared by several of them. Answer as "
        '{"attributes": [{"name": "crown color", "kind": "words", "values": ["red", "black"]}, '
        '{"name": "crest", "kind": "yes/no"}, {"name": "body length cm", "kind": "number"}]}. '
        f"Kinds are {', '.join(KINDS)}."
    )


def asked_for_values(classes: Sequence[str], attributes: Sequence[Attribute], about: str) -> str:
    """The request for the rows of some classes."""
    columns = "\n".join(
        f"- {a.name}: {', '.join(a.values) + ' (one or several)' if a.values else a.kind}" for a in attributes
    )
    return (
        f"Classes{f' ({about})' if about else ''}:\n" + "\n".join(classes) + f"\n\nAttributes:\n{columns}\n\n"
        'Answer as {"classes": {"CLASS": {"ATTRIBUTE": VALUE}}} with every class and attribute, spelt as here. A VALUE '
        "is true or false, a word or a list of words, a number, or null where you do not know."
    )


def describe(
    classes: Sequence[str],
    output: Path,
    endpoint: Endpoint,
    *,
    attributes: Sequence[Attribute] | None = None,
    about: str = "",
    count: int = 20,
    progress: Progress = silent,
) -> tuple[Path, Path]:
    """Draft a class table; repeating the call resumes one that was stopped.

    Args:
        classes: class names.
        output: ``.csv`` file of the table; ``provenance.csv`` is written beside it.
        endpoint: language model to use.
        attributes: columns; ``None`` first requests ``count`` of them.
        about: what the classes are, in a few words.
        count: number of columns to request.
        progress: progress callback.

    Raises:
        DataError: a file already exists, or two consecutive answers cannot be used.
        UnseenError: the endpoint cannot be reached, or refuses the request.
    """
    beside = output.with_name(f"{PROVENANCE}.csv")
    if output.suffix.lower() != ".csv":
        raise DataError("not a .csv file", where=output, hint="use a file name that ends in .csv")
    for path in (output, beside):
        if path.exists():
            raise DataError("already exists", where=path, hint="pass another --output")
    if len(set(classes)) < len(classes) or not classes:
        raise DataError(
            "no classes" if not classes else "a class appears twice", hint="list each class once, one per line"
        )
    facts = digest(json.dumps([list(classes), about, count, [asdict(a) for a in attributes or ()], endpoint.model]))
    output.parent.mkdir(parents=True, exist_ok=True)
    with Journal(output.with_name(output.name + ".partial.jsonl")) as journal:
        kept = [record for record, _ in journal.records()]
        if kept and kept[0].get("facts") != facts:
            hint = f"repeat that command, or remove {journal.path}"
            raise DataError(
                "the folder has an unfinished draft of other classes, attributes or another model",
                where=output,
                hint=hint,
            )
        if not kept:
            journal.cut(0)
            journal.append({"facts": facts})
        columns = list(attributes or ()) or [_attribute(a) for r in kept for a in r.get("attributes", ())]
        if not columns:
            columns = _ask_for_attributes(endpoint, classes, about, count)
            journal.append({"attributes": [asdict(a) for a in columns]})
        cells = {name: row for record in kept for name, row in record.get("cells", {}).items()}
        for names in _batches([name for name in classes if name not in cells]):
            progress("drafting", len(cells), len(classes))
            found = _ask_for_values(endpoint, names, columns, about)
            journal.append({"cells": found})
            cells |= found
        progress("drafting", len(classes), len(classes))
    names = [a.name for a in columns]
    write_text(output, csv_text(["class", *names], [[c, *(cells[c][n] for n in names)] for c in classes]))
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    rows = [[c, n, cells[c][n], DRAFTED, endpoint.model, endpoint.host, day, ""] for c in classes for n in names]
    write_text(beside, csv_text(COLUMNS, rows))
    journal.path.unlink()
    return output, beside


def _attribute(entry: dict[str, Any]) -> Attribute:
    return Attribute(entry["name"], entry["kind"], tuple(entry["values"]))


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), BATCH):
        yield names[start : start + BATCH]


def _ask_for_attributes(endpoint: Endpoint, classes: Sequence[str], about: str, count: int) -> list[Attribute]:
    def read(answer: Any) -> list[Attribute]:
        found = checked(_Proposals, answer, "the answer", error=DataError, hint=HINT).attributes
        made = [Attribute(a.name.strip(), a.kind, tuple(dict.fromkeys(a.values))) for a in found]
        names = [a.name.casefold() for a in made]
        if len(set(names)) < len(names) or "class" in names:
            raise DataError("an attribute appears twice, or is named class", where="the answer", hint=HINT)
        return made

    return _ask(endpoint, asked_for_attributes(classes, about, count), read)


def _ask_for_values(
    endpoint: Endpoint, names: Sequence[str], attributes: Sequence[Attribute], about: str
) -> dict[str, dict[str, str]]:
    def read(answer: Any) -> dict[str, dict[str, str]]:
        found = checked(_Values, answer, "the answer", error=DataError, hint=HINT).classes
        lacking = [name for name in names if name not in found]
        if lacking:
            raise DataError(f'no class "{lacking[0]}"', where="the answer", hint=HINT)
        return {name: {a.name: _cell(a, found[name].get(a.name), name) for a in attributes} for name in names}

    return _ask(endpoint, asked_for_values(names, attributes, about), read)


def _cell(attribute: Attribute, value: Any, name: str) -> str:
    """A value as a cell of the table; blank if unknown."""
    where = f'the answer, class "{name}", attribute "{attribute.name}"'
    if value is None or value == "":
        return ""
    if attribute.kind == "yes/no":
        words = {True: "yes", False: "no", "yes": "yes", "no": "no", "true": "yes", "false": "no"}
        key = value.casefold() if isinstance(value, str) else value
        if not isinstance(key, str | bool) or key not in words:
            raise DataError(f"{value!r:.40} is not true or false", where=where, hint=HINT)
        return words[key]
    if attribute.kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"{value!r:.40} is not a number", where=where, hint=HINT)
        return f"{value:g}"
    several = value if isinstance(value, list) else [value]
    if not all(isinstance(word, str) and word.strip() for word in several):
        raise DataError(f"{value!r:.40} is not a word", where=where, hint=HINT)
    allowed = {word.casefold(): word for word in attribute.values}
    for word in several:
        if allowed and word.strip().casefold() not in allowed:
            raise DataError(f'"{word}" is not one of {", ".join(attribute.values)}', where=where, hint=HINT)
    return "; ".join(dict.fromkeys(allowed.get(w.strip().casefold(), w.strip()) for w in several))


def _ask(endpoint: Endpoint, text: str, read: Callable[[Any], T]) -> T:
    """Parse the answer with ``read``; if that fails, ask once more with the error."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    for last in (False, True):
        answer = _post(endpoint, messages)
        try:
            return read(_json(answer))
        except DataError as error:
            if last:
                raise
            said = f"This cannot be used: {error}. Give the whole JSON object again, corrected."
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": said}]
    raise AssertionError


def _json(text: str) -> Any:
    """The JSON of an answer; some models put it in a code block."""
    plain = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        return json.loads(plain)
    except ValueError as error:
        raise DataError(f"not valid JSON ({error})", where="the answer", hint=HINT) from None


def _post(endpoint: Endpoint, messages: list[dict[str, str]]) -> str:
    httpx = needed("httpx", "unseen describe")
    body = {
        "model": endpoint.model,
        "messages": messages,
        "temperature": 0,
        "response_format": {"type": "json_object"},
    }
    headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    url = endpoint.url.rstrip("/") + "/chat/completions"
    try:
        reply = httpx.post(url, json=body, headers=headers, timeout=SECONDS)
        reply.raise_for_status()
        value = reply.json()
    except httpx.HTTPStatusError as error:
        said = " ".join(error.response.text.split())[:200]
        hint = "set the variable of --key-variable" if error.response.status_code in (401, 403) else HINT
        raise UnseenError(f"{error.response.status_code}: {said}", where=url, hint=hint) from None
    except (httpx.HTTPError, ValueError) as error:
        said = str(error) or type(error).__name__
        raise UnseenError(f"no answer ({said})", where=url, hint="is it running, and is this its address?") from None
    content: str = checked(_Reply, value, url, hint="give an OpenAI-compatible endpoint").choices[0].message.content
    return content


def key_of(variable: str) -> str:
    """The key in an environment variable; empty if it is not set."""
    return os.environ.get(variable, "")
