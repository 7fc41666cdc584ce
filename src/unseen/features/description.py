"""Pydantic schema of ``store.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _plain(name: str) -> str:
    if not name or Path(name).name != name:
        raise ValueError("is not a file name in the store")
    return name


Size = Annotated[int, Field(ge=1)]


class Network(BaseModel):
    """Source of the features: the spec of a backbone, or the origin of imported ones."""

    model_config = ConfigDict(extra="allow")

    name: str


class Stage(BaseModel):
    """File, grid and channels of one stage."""

    model_config = ConfigDict(extra="forbid")

    stage: str | int
    file: Annotated[str, AfterValidator(_plain)]
    grid: tuple[Size, Size]
    channels: Size
    parts: list[Size] | None = None


class Description(BaseModel):
    """A region store."""

    model_config = ConfigDict(extra="allow")

    format: int
    fingerprint: str
    backbone: Network
    dtype: Literal["float16", "bfloat16", "float32"]
    chunk: Size
    stages: Annotated[list[Stage], Field(min_length=1)]
    names: list[str]
    versions: dict[str, Any]
    engine: str | None
