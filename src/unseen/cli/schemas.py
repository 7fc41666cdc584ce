"""``unseen schema``: the JSON Schema of what ``--json`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unseen.cli.common import JSON_VERSION, app, check_ending
from unseen.errors import UnseenError
from unseen.ground.files import write_text

if TYPE_CHECKING:
    from pydantic import BaseModel


def models() -> dict[str, type[BaseModel]]:
    """Schema of each command's output, by its name in ``unseen schema``."""
    from pydantic import BaseModel, ConfigDict, Field

    version = (int, Field(description="Rises when an entry is renamed, removed or means something else."))

    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")

    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")

    def closed(title: str, **entries: Any) -> type[BaseModel]:
        from pydantic import create_model

        return create_model(title, __base__=Strict, json_version=version, **entries)

    def opened(title: str, **entries: Any) -> type[BaseModel]:
        from pydantic import create_model

        return create_model(title, __base__=Open, json_version=version, **entries)

    class Candidate(Strict):
        name: str
        seen: bool
        confidence: float = Field(ge=0, le=1)
        score: float

    class Evidence(Strict):
        attribute: str
        evidence: float

    class Taxon(Strict):
        rank: str
        name: str
        confidence: float = Field(ge=0)
        probably: str
        sure: bool

    class Prediction(Strict):
        image: str
        known: bool
        classes: list[Candidate]
        attributes: list[Evidence]
        answer: str | None = None
        answer_rank: str | None = None
        ranks: list[Taxon] | None = None
        rank: str | None = None
        prior: float | None = None
        without_prior: Candidate | None = None
        together: bool | None = None
        error: str | None = None

    class Finding(Open):
        level: str
        what: str

    text, count, texts = (str, ...), (int, ...), (list[str], ...)
    return {
        "predict": closed("predict", items=(list[Prediction], ...)),
        "predict --output": closed(
            "predict --output", output=text, images=count, broken=count, unknown=count, coarser=(int | None, None)
        ),
        "merge": closed("merge", output=text, images=count),
        "check": opened("check", folder=text, ready=(bool, ...), findings=(list[Finding], ...)),
        "train": opened("train", run=text, page=(str | None, ...), protocols=(dict[str, Any], ...), warnings=texts),
        "evaluate": opened("evaluate", protocol=text, seeds=(dict[str, Any], ...), per_class=(list[Any], ...)),
        "explain": opened("explain", image=text, known=(bool, ...), classes=(list[Candidate], ...), figure=text),
        "list": opened("list", items=(list[dict[str, Any]], ...)),
        "report": closed("report", report=text),
    }


def schema() -> dict[str, Any]:
    """All of them as one JSON Schema, each under ``$defs``."""
    definitions: dict[str, Any] = {}
    for name, model in models().items():
        found = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= found.pop("$defs", {})
        definitions[name] = found
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What unseen --json prints",
        "json_version": JSON_VERSION,
        "oneOf": [{"$ref": f"#/$defs/{name.replace(' ', '%20')}"} for name in models()],
        "$defs": dict(sorted(definitions.items())),
    }


@app.command(name="schema")
def print_schema(
    command: Annotated[str | None, typer.Argument(help="Command [default: all commands].", show_default=False)] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write [default: standard output].", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of what `--json` prints.

    Example: `unseen schema predict`
    """
    import json
    import sys

    if output is not None:
        check_ending(output, ".json")
    found = schema()
    if command is not None:
        known = models()
        if command not in known:
            raise UnseenError(f'no schema of "{command}"', hint=f"use one of {', '.join(known)}")
        found = known[command].model_json_schema()
    text = json.dumps(found, indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        write_text(output, text)
