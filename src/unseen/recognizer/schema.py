"""Pydantic schema of ``recognizer.json`` in a saved folder; imported only when one is read."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model, field_validator

from unseen.backbones.towers import PREFIX
from unseen.backbones.vision import timm
from unseen.methods import Settings
from unseen.recognizer.names import HUB_ID, LARGEST, TOWER

Text = Annotated[str, StringConstraints(max_length=1000)]
Number = Annotated[float, Field(allow_inf_nan=False)]
_RESERVED = set(inspect.signature(timm.create_model).parameters)


class SavedBackbone(BaseModel):
    """A backbone to download by name, or with weights in the folder; other entries are those of the spec."""

    model_config = ConfigDict(extra="allow")
    name: Text
    weights: Literal["pretrained", "random", "backbone.safetensors"]
    image_size: Annotated[int, Field(ge=1, le=4096)]
    stages: Annotated[list[str | int], Field(max_length=16)]
    options: dict[str, Any]
    mean: tuple[Number, Number, Number]
    std: tuple[Number, Number, Number]
    crop: Annotated[float, Field(ge=0, le=1)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]

    @field_validator("name")
    @classmethod
    def _inside(cls, name: str) -> str:
        tower = name.removeprefix(PREFIX) if name.startswith(PREFIX) else None
        if tower not in (None, TOWER) and not HUB_ID.fullmatch(str(tower).partition("@")[0]):
            raise ValueError("is outside the folder")
        return name

    @field_validator("options")
    @classmethod
    def _harmless(cls, options: dict[str, Any]) -> dict[str, Any]:
        for key, value in options.items():
            scalars = value if isinstance(value, list) and len(value) <= 16 else [value]
            if key in _RESERVED or key.startswith("pretrained") or not all(map(_small, scalars)):
                raise ValueError(f"{key[:60]} is not allowed")
        return options
        return options


def _small(value: Any) -> bool:
    return value is None or isinstance(value, str | bool) or (isinstance(value, int | float) and abs(value) <= 1e5)


class Version(BaseModel):
    """Format version of a file."""

    format: Annotated[int, Field(ge=1, le=LARGEST)]


class SavedRank(BaseModel):
    """Thresholds of a rank, as in :class:`unseen.model.ranks.RankThreshold`."""

    model_config = ConfigDict(extra="forbid")
    asked: Number | None = None
    coarser: Number | None = None


class SavedModel(Version):
    """A saved model without tensors and tables; arguments as in :class:`unseen.recognizer.parts.Parts`."""

    model_config = ConfigDict(extra="forbid")
    method: Text
    settings: dict[str, Any]
    vector_length: Annotated[int, Field(ge=1, le=LARGEST)]
    backbone: SavedBackbone
    gamma: Number
    temperature: Annotated[float, Field(ge=1e-12, allow_inf_nan=False)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    rank_thresholds: Annotated[dict[Text, SavedRank], Field(max_length=100)] = {}
    store_dtype: Literal["float32", "float16", "bfloat16"]
    reduce: Text | None = None
    typical: list[Number] | None = None
    about: dict[str, Any]
    tables: dict[str, Text] = {}


_KINDS: dict[type, Any] = {
    bool: bool,
    int: Annotated[int, Field(ge=-10_000, le=10_000)],  # may be a size for which memory is allocated
    float: Annotated[float, Field(ge=-LARGEST, le=LARGEST)],
    str: Text,
}


def _kind(value: Any) -> Any:
    return tuple[tuple(map(_kind, value))] if isinstance(value, tuple) else _KINDS[type(value)]  # type: ignore[misc]


def settings_model(default: Settings) -> type[BaseModel]:
    """Settings of a method, each of the type of the method's default, which fills in missing ones."""
    entries: dict[str, Any] = {name: (_kind(value), value) for name, value in vars(default).items()}
    return create_model("Settings", __config__=ConfigDict(extra="forbid"), **entries)
