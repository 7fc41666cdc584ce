"""Names of networks: timm's, users' own, image towers, imported features."""

from __future__ import annotations

import difflib
from typing import Any

from unseen.backbones import own, towers
from unseen.backbones.vision import timm
from unseen.errors import UnseenError
from unseen.ground.outside import is_path

HUB = ("hf-hub:", "hf_hub:")
"""Prefixes of hub models in timm and open_clip."""
OPEN_CLIP = "open_clip:"
IMPORTED = "features:"
"""Prefix of features imported into a dataset folder, which come without a network."""


def check_name(name: str) -> None:
    """Raise :class:`UnseenError` if there is no such network."""
    if name.startswith(towers.PREFIX):
        if name == towers.PREFIX:
            raise UnseenError("no model name", where=name, hint="use hf:FOLDER or hf:OWNER/NAME")
        return
    if name.startswith(OPEN_CLIP):
        hint = (
            "use hf:OWNER/NAME or hf:FOLDER of a model, or its image tower in timm, such as vit_base_patch16_clip_224"
        )
        raise UnseenError("open_clip's own names are not used", where=name, hint=hint)
    if is_own(name):
        return
    if name.startswith(IMPORTED):
        if name == IMPORTED:
            raise UnseenError(
                "no feature name", where=name, hint="use features:NAME, with the name from `unseen import`"
            )
        return
    base = name.partition(".")[0]
    if not timm.is_model(base):
        close = difflib.get_close_matches(base, ["fieldguide"], cutoff=0.8)
        close = close or difflib.get_close_matches(base, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists the models"
        raise UnseenError(f"timm has no model {name!r}", where="backbone", hint=hint)
    if "." in name:
        tagged = [m for m in timm.list_pretrained(base + "*") if m.split(".")[0] == base]
        if name not in tagged:
            raise UnseenError(f"timm has no weights {name!r}", where="backbone", hint=f"available: {', '.join(tagged)}")


def usual(name: str) -> str:
    """A name in this package's form: ``hf:ID`` of the hub, or without a prefix if timm keeps the model there."""
    prefix = next((prefix for prefix in (*HUB, towers.PREFIX) if name.startswith(prefix)), "")
    identifier = name.removeprefix(prefix)
    if identifier.startswith("timm/") and timm.is_model(identifier[5:].partition(".")[0]):
        return identifier[5:]
    return towers.PREFIX + identifier if prefix else name


def is_own(name: str) -> bool:
    """Whether a name refers to a user's network."""
    reserved = name.startswith((towers.PREFIX, IMPORTED, OPEN_CLIP))
    return name.startswith(own.GIVEN) or (is_path(name) and not reserved)


def own_path(name: str) -> str:
    """Path of a model that the user has registered with timm, since other processes would not know its name."""
    base = name.partition(".")[0]
    if is_own(name) or name.startswith((towers.PREFIX, IMPORTED)) or not timm.is_model(base):
        return name
    entry = timm.model_entrypoint(base)
    return name if entry.__module__.startswith("timm.") else own.remember(entry)


def defaults(name: str) -> Any:
    """Configuration of a timm model, without building it: input size, normalization, tag."""
    return timm.get_pretrained_cfg(name)
