"""``--config``: the options of a command from a YAML or JSON file, including the ``config.json`` of a run."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from unseen.errors import UnseenError
from unseen.ground.files import SEAL

KEPT = {"protocols", "seeds"}
"""Entries by which a run's own file is recognized."""


def with_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option ``--config``; the file provides options that are not given."""

    @wraps(command)
    def run(config: str | None = None, **values: Any) -> None:
        command(**values)

    mine = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in inspect.signature(command, eval_str=True).parameters.values()
    ]
    added = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigOption)
    run.__signature__ = inspect.Signature([*mine, added])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*mine, added)}
    del run.__wrapped__
    return run


def _take(ctx: typer.Context, value: str | None) -> str | None:
    if value:
        known = [str(p.name) for p in ctx.command.params if p.name not in ("config", "help")]
        ctx.default_map = {**read_options(Path(value), known), **(ctx.default_map or {})}
    return value


ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="YAML or JSON file with options, such as a run's config.json; the command line overrides it.",
        envvar="UNSEEN_CONFIG",
        is_eager=True,
        callback=_take,
        show_default=False,
    ),
]


def read_options(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Options of a command by name.

    Args:
        path: a mapping of options, ``image-size: 224`` or ``image_size: 224``; or a run's ``config.json``.
        known: names of the command's options and arguments.

    Raises:
        UnseenError: no such file, not a mapping, or an option that the command does not have.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnseenError(error.strerror or str(error), where=path, hint="pass a YAML or JSON file") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UnseenError(f"not valid YAML ({' '.join(str(error).split())})", where=path, hint="fix the file") from None
    if not isinstance(content, Mapping):
        raise UnseenError("not a mapping of options", where=path, hint="use lines such as `epochs: 20`")
    given = {str(name).replace("-", "_"): value for name, value in content.items() if name != SEAL}
    if given.keys() >= KEPT and isinstance(given.get("backbone"), Mapping):
        given = _of_run(given)
    given = {{"set": "setting", "json": "as_json"}.get(name, name): value for name, value in given.items()}
    unknown = [name for name in given if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], list(known), 1)
        hint = f'did you mean "{near[0]}"?' if near else f"use one of {', '.join(sorted(known))}"
        raise UnseenError(f'no option "{unknown[0]}"', where=path, hint=hint)
    return {name: _as_option(value) for name, value in given.items() if value is not None}


def _as_option(value: Any) -> Any:
    """Mappings as repeated NAME=VALUE of the command line, lists of numbers as one text."""
    if isinstance(value, Mapping):
        return [f"{name}={entry}" for name, entry in value.items()]
    return value


def _of_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's own configuration as options of `unseen train`."""
    from unseen.backbones.spec import SINGLE, BackboneSpec
    from unseen.training.plan import default_backbone

    spec = BackboneSpec.from_json(config["backbone"])
    drawn = config["dataset"] == "fieldguide"
    own = drawn and spec.name == default_backbone("fieldguide").name
    network: dict[str, Any] = {n: getattr(spec, n) for n in ("image_size", "zoom", "mirror", "crop")}
    network["pixels"] = spec.pixels
    network["stage"] = ",".join(map(str, spec.stages))
    network |= {n: ",".join(map(str, v)) for n in ("mean", "std") if (v := getattr(spec, n)) is not None}
    if not own:
        network |= {"backbone": spec.name, "backbone_weights": spec.weights, "backbone_option": dict(spec.options)}
        if spec.imported:
            network["backbone_weights"] = None
    both = len(config["protocols"]) == 2
    rest = {
        n: v
        for n, v in config.items()
        if n not in ("backbone", "settings", "protocols", "seeds", "raced", "looked", "time")
    }
    if config.get("time"):
        rest["time"] = f"{config['time']:g}s"
    if config.get("raced"):  # the method is the winner of `auto`
        rest |= {"method": "auto", "preset": None}
    network |= {n: SINGLE[n] for n in config.get("looked", ())}  # so are further looks
    return {
        **rest,
        **network,
        "setting": config["settings"],
        "protocol": "both" if both else config["protocols"][0],
        "seeds": ",".join(map(str, config["seeds"])) + ",",
    }
