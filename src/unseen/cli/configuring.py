"""Parse texts of the command line as settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from unseen.errors import UnseenError

EXAMPLES = {
    "--set": "lambda_cal=0.1",
    "--recipe": "lr=1e-3",
    "--backbone-option": "pad_type=same",
    "--instead": "toughskin='tough skin'",
}


MOST_SEEDS = 1000


def pairs(values: list[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` texts as a dictionary; otherwise :class:`UnseenError` names the option."""
    found = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UnseenError(
                f'"{text}" is not NAME=VALUE', where=option, hint=f"for example, {option} {EXAMPLES[option]}"
            )
        found[name.strip()] = value.strip()
    return found


def typed(text: str) -> Any:
    """Parse a backbone option: a number, true/false, a list as in JSON, or text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def triple(text: str | None, option: str) -> tuple[float, ...] | None:
    """One or three comma-separated numbers, as three."""
    if text is None:
        return None
    try:
        values = tuple(float(v) for v in text.split(","))
    except ValueError:
        values = ()
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise UnseenError(f'"{text}" is not one or three numbers', where=option, hint="use 0.5 or 0.485,0.456,0.406")
    return values


def parse_seeds(text: str) -> tuple[int, ...]:
    """``5`` is seeds 0 to 4; ``214,`` and ``1,7`` are lists."""
    try:
        if "," in text:
            return tuple(int(v) for v in text.split(",") if v.strip())
        if 0 < int(text) <= MOST_SEEDS:
            return tuple(range(int(text)))
    except ValueError:
        pass
    raise UnseenError(
        f'"{text}" is not a number or list of seeds',
        where="--seeds",
        hint="use a number of seeds, or a list such as 0,7",
    )


def parse_protocols(text: str) -> tuple[str, ...]:
    """``honest``, ``paper`` or ``both``."""
    known = {"honest": ("honest",), "paper": ("paper",), "both": ("honest", "paper")}
    if text not in known:
        raise UnseenError(f'unknown protocol "{text}"', where="--protocol", hint="use honest, paper or both")
    return known[text]


def make_backbone(
    dataset: str,
    name: str | None,
    weights: str | None,
    size: int | None,
    zoom: int,
    mirror: bool,
    options: list[str],
    mean: str | None,
    std: str | None,
    crop: float,
    pixels: str,
    stages: str,
    device: str,
    methods: Sequence[str] = (),
) -> Any:
    """The backbone spec from the options of a command; by default the one for dataset, device and methods."""
    from dataclasses import replace

    from unseen.backbones.naming import IMPORTED
    from unseen.backbones.spec import BackboneSpec
    from unseen.data.folder_images import imported_folder
    from unseen.training.plan import default_backbone

    extra = {k: typed(v) for k, v in pairs(options, "--backbone-option").items()}
    chosen = tuple(s if s == "final" else typed(s) for s in stages.split(","))
    normal: dict[str, Any] = {
        "mean": triple(mean, "--mean"),
        "std": triple(std, "--std"),
        "pixels": pixels,
        "zoom": zoom,
        "mirror": mirror,
    }
    if name is None or name == "fieldguide":
        if weights is not None or extra:
            raise UnseenError(
                "--backbone-weights and --backbone-option need --backbone", hint="add --backbone with a timm model"
            )
        default = default_backbone(name or dataset, device, methods)
        changes = {k: v for k, v in {**normal, "image_size": size}.items() if v is not None}
        return replace(default, stages=chosen, crop=crop, **changes)
    if name.startswith(IMPORTED):
        weights = imported_folder(dataset, name)
    found = "pretrained" if weights is None else weights
    made = BackboneSpec(name=name, stages=chosen, image_size=size, weights=found, options=extra, crop=crop, **normal)
    return made.located()
